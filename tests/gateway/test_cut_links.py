"""Links that are cut in the middle: nothing is lost, nothing is there twice, and the work goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy_worker.link.client import Patience
from proxy_worker.link.errors import LinkUnavailableError
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store import Buffer
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.store.remote import RemoteStore
from tests.gateway.serving import HERE, QUICK, Fleet, Served, serving
from tests.repository.making import (
    BLOCK,
    CREDENTIAL,
    KEY,
    SMALL,
    VM,
    back_up,
    commit,
    make_repository,
    noise,
    restore,
    store_content,
    write_disk,
)
from tests.surviving.relay import Relay, Wire

RUN = "20261122T190102Z-00000001"


class Watched(LocalStore):
    """The gateway's folder, which says what is written to it, and when."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.puts: list[str] = []
        self.gets: list[str] = []
        self.in_the_middle: Callable[[str], None] = lambda _: None
        self.afterwards: Callable[[str], None] = lambda _: None

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.gets.append(name)
        return super().get(name, offset, length)

    def put_if_absent(self, name: str, chunks: Iterable[Buffer]) -> bool:
        def watched() -> Iterator[Buffer]:
            for chunk in chunks:
                self.in_the_middle(name)
                yield chunk

        created = super().put_if_absent(name, watched())
        self.puts.append(name)
        self.afterwards(name)
        return created


@dataclass
class Site:
    """A repository behind a gateway behind a link that can be cut."""

    served: Served
    relay: Relay
    folder: Watched
    caches: Path
    cuts: int = 0

    def store(self, patience: Patience = QUICK) -> RemoteStore:
        return RemoteStore(f"proxyfleet://{HERE}:{self.relay.port}/main", self.served.proxy, patience=patience)

    def repository(self, store: RemoteStore | None = None) -> Repository:
        return Repository.open(store or self.store(), CREDENTIAL, cache_dir=self.caches)

    def cut_once(self, prefix: str) -> Callable[[str], None]:
        """Cuts every connection the first time that an object of this kind is at this point."""

        def cut(name: str) -> None:
            if name.startswith(prefix) and not self.cuts:
                self.cuts += 1
                self.relay.wire = Wire.CUT
                self.relay.wire = Wire.WHOLE

        return cut


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = Watched(tmp_path / "store")
    make_repository(folder).close()
    with serving(Fleet.made(tmp_path / "fleet"), {"main": folder}) as served:
        relay = Relay(served.port)
        yield Site(served, relay, folder, tmp_path / "cache")
        relay.close()


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        ("packs/", "in the middle"),
        ("packs/", "before the answer"),
        ("points/", "before the answer"),
    ],
)
def test_a_backup_goes_on_after_a_cut_and_restores_equal(site: Site, kind: str, moment: str) -> None:
    content = noise(20)
    cut = site.cut_once(kind)
    if moment == "in the middle":
        site.folder.in_the_middle = cut
    else:
        site.folder.afterwards = cut

    with site.repository() as repository:
        point = back_up(repository, content, run=RUN)
        assert site.cuts == 1
        assert restore(repository, point) == content

    kept = [name for name in site.folder.puts if name.startswith("packs/")]
    assert len(kept) - len(set(kept)) <= 1, "no pack but the one under way is sent twice"
    assert list(site.folder.list("writers/")) == []
    assert list(site.folder.leftovers()) == []
    with make_local(site) as local:
        assert [one.run for one in local.points()] == [RUN]
        assert restore(local, local.points()[0]) == content


def make_local(site: Site) -> Repository:
    return Repository.open(LocalStore(Path(site.folder.location)), CREDENTIAL)


def test_a_restore_over_connections_that_were_cut_makes_new_ones(site: Site) -> None:
    content = noise(20)
    with site.repository() as repository:
        point = back_up(repository, content, run=RUN)
        site.relay.wire = Wire.CUT
        site.relay.wire = Wire.WHOLE
        assert restore(repository, point) == content


def test_a_link_that_stays_away_is_given_up_by_name(site: Site) -> None:
    store = site.store(Patience(first_pause_s=0.01, longest_pause_s=0.01, in_all_s=0.05))
    assert store.exists("config/1")
    site.relay.wire = Wire.CUT

    with pytest.raises(LinkUnavailableError, match=r"gateway 127\.0\.0\.1:.*proxy-worker serve"):
        store.exists("config/1")


def test_what_a_writer_delivered_that_never_finished_serves_the_next_attempt(site: Site) -> None:
    content = noise(20)
    with site.repository() as repository:
        first = repository.begin_disk(vm_id=VM.vm_id, run=RUN, disk_key=KEY, fence=1, limits=SMALL)
        store_content(first, content[: 12 * BLOCK])
        first.flush()
        assert first.wait_durable(first.mark())
        first.abort()
    with site.repository() as repository:
        delivered = sum(site.folder.size(name) for name in site.folder.list("packs/"))
        result = write_disk(repository, content, run=RUN, fence=2)
        point = commit(repository, result, run=RUN, fence=2)
        sent = sum(site.folder.size(name) for name in site.folder.list("packs/")) - delivered

        assert delivered > 12 * BLOCK
        assert sent < 9 * BLOCK
        assert restore(repository, point) == content


def test_the_index_of_a_remote_repository_is_cached(site: Site) -> None:
    content = noise(20)
    with site.repository() as repository:
        back_up(repository, content, run=RUN)
    with site.repository() as repository:
        back_up(repository, content + noise(1, seed=2), run="20261122T190102Z-00000002")
    known = set(site.folder.list("index/"))
    site.folder.gets.clear()

    with site.repository() as repository:
        back_up(repository, content + noise(1, seed=3), run="20261122T190102Z-00000003")

    read = [name for name in site.folder.gets if name in known]
    assert len(read) <= 1, "of what it has written or read before, it reads nothing again"
