"""A hardened repository: what proxies, its own upkeep and whoever breaks in can do there, and what they can't.

On a real file system with real flags; a clock that counts as CLOCK_BOOTTIME does is turned by the test. Needs root.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy_worker.gateway.hardened import HardenedStore
from proxy_worker.link.client import Patience
from proxy_worker.link.errors import LinkRefusedError, LinkUnavailableError
from proxy_worker.repository import passphrases
from proxy_worker.repository.collector import CollectionReport, collect
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.rotation import remove_passphrase
from proxy_worker.repository.store import ObjectLockedError, ObjectNotFoundError, StoreReadOnlyError
from proxy_worker.repository.store.remote import RemoteStore
from proxy_worker.repository.withdrawal import end_point
from proxy_worker.warden.messages import Answer
from tests.gateway.serving import HERE, Fleet, Served, serving
from tests.repository.making import (
    BLOCK,
    CREDENTIAL,
    PASSPHRASE,
    VM,
    back_up,
    commit,
    make_repository,
    noise,
    report_of,
    restore,
    write_disk,
)
from tests.simulators.loop_devices import run
from tests.warden.vault import OWNER, PERIOD_S, Clock, NearWarden, as_owner, disk, folder_on

POINT, PACK = "points/vm/run", "packs/ab/one"
RUNS = [f"20261122T19010{number}Z-0000000{number}" for number in range(4)]
IMPATIENT = Patience(first_pause_s=0.01, longest_pause_s=0.01, in_all_s=0.05, first_contact_s=0.05)


class Warden(NearWarden):
    """One that may be away."""

    away = False
    not_heard: str | None = None
    """It is away for questions about this name, while `absences` last."""
    absences = sys.maxsize

    def _exchanged(self, question: bytes) -> Answer:
        unheard = self.not_heard is not None and self.not_heard.encode() in question and self.absences > 0
        self.absences -= unheard
        if self.away or unheard:
            raise ConnectionError("the warden doesn't answer")
        return super()._exchanged(question)


@dataclass(frozen=True)
class Vault:
    """A gateway with one hardened repository."""

    served: Served
    root: Path
    warden: Warden
    clock: Clock

    @property
    def proxys(self) -> RemoteStore:
        """The repository as a proxy has it."""
        return self.served.store()

    @property
    def keepers(self) -> RemoteStore:
        """The repository as its upkeep has it, with the gateway's own certificate."""
        return self.served.store(self.served.keeper)

    def after(self, periods: float) -> None:
        """Let time pass."""
        self.clock.now_s += periods * PERIOD_S

    def files(self) -> dict[str, bytes]:
        """All that is named."""
        return {
            str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()
        }


@pytest.fixture(scope="module")
def ext4() -> Iterator[Path]:
    with disk() as point:
        yield point


@pytest.fixture
def vault(ext4: Path, tmp_path: Path) -> Iterator[Vault]:
    clock = Clock()
    with ExitStack() as open_:
        root = open_.enter_context(folder_on(ext4))
        state = Path(open_.enter_context(tempfile.TemporaryDirectory(prefix="vault-")))
        warden = Warden(root, state, clock)
        open_.callback(warden.close)
        store = HardenedStore(root, warden)
        store.prepare()
        served = open_.enter_context(serving(Fleet.made(tmp_path / "fleet"), {"main": store}))
        yield Vault(served, root, warden, clock)


def test_nobody_overwrites_or_deletes_not_even_with_the_gateways_certificate(vault: Vault) -> None:
    for name in (POINT, PACK, "index/a", "seals/a/b", "condemned/1", "keys/a", "config/1"):
        assert vault.keepers.put_if_absent(name, [b"content"])
    before = vault.files()

    for store, refusal in ((vault.proxys, StoreReadOnlyError), (vault.keepers, ObjectLockedError)):
        for name in (POINT, PACK, "index/a"):
            assert not store.put_if_absent(name, [b"mine"])
        for name in before:
            with pytest.raises(refusal):
                store.delete(name)
    with pytest.raises(ObjectLockedError, match=r"keys/a: .* immutable for ever"):
        vault.keepers.replace("keys/a", [b"mine"])
    with pytest.raises(ObjectLockedError, match=POINT):
        vault.keepers.put_if_absent("ended/vm/run", [b"ends the point"])
    with pytest.raises(LinkRefusedError, match="may not say that all is renewed"):
        vault.proxys.keep()
    assert vault.files() == before


def test_who_broke_into_the_gateway_gets_no_further(vault: Vault) -> None:
    vault.proxys.put_if_absent(PACK, [b"content"])
    run("find", vault.root, "-type", "d", "-name", "ab", "-exec", "chown", f"{OWNER}:{OWNER}", "{}", "+")
    for command in (
        ("rm", "-rf", vault.root / "packs"),
        ("truncate", "--size=0", vault.root / PACK),
        ("mv", vault.root / PACK, vault.root / "packs/ab/two"),
    ):
        assert as_owner(*command).returncode != 0
    assert vault.files() == {PACK: b"content"}


def test_marks_of_work_come_and_go(vault: Vault) -> None:
    for name in ("writers/vm/run/disk.1", "readers/a"):
        assert vault.proxys.put_if_absent(name, [b"x"])
        vault.proxys.delete(name)
    assert vault.files() == {}


def test_upkeep_ends_and_removes_a_point_when_its_term_is_over(vault: Vault) -> None:
    vault.proxys.put_if_absent(POINT, [b"content"])
    vault.after(1)
    assert vault.keepers.put_if_absent("ended/vm/run", [b"ends the point"])
    vault.keepers.delete(POINT)
    assert set(vault.files()) == {"ended/vm/run"}
    with pytest.raises(StoreReadOnlyError):
        vault.proxys.delete("ended/vm/run")


def test_nobody_ends_a_point_that_is_not_there_yet(vault: Vault) -> None:
    make_repository(vault.keepers).close()
    end, content = f"ended/{VM.vm_id}/{RUNS[0]}", noise(4)
    with opened(vault.proxys) as repository:
        result = write_disk(repository, content, run=RUNS[0])
        with pytest.raises(ObjectNotFoundError, match="there is no such restore point"):
            vault.keepers.put_if_absent(end, [b"a thief's"])
        commit(repository, result, run=RUNS[0])
        with pytest.raises(ObjectLockedError, match=RUNS[0]):
            vault.keepers.put_if_absent(end, [b"a thief's"])
        assert restore(repository, repository.points()[0]) == content


def test_nobody_ends_a_point_by_a_mark_begun_before_it_or_while_it_is_not_locked(vault: Vault) -> None:
    store = HardenedStore(vault.root, vault.warden)
    mark = store.create("ended/vm/run")
    (vault.root / "points/vm").mkdir(parents=True)
    (vault.root / POINT).write_bytes(b"named, and not locked yet")
    with pytest.raises(ObjectLockedError, match=POINT):
        mark.finish()
    mark.discard()
    assert not store.exists("ended/vm/run")


def test_a_mark_that_ends_a_point_may_be_put_twice(vault: Vault) -> None:
    """By two who remove it at once: one of them comes when the point has gone."""
    vault.proxys.put_if_absent(POINT, [b"content"])
    vault.after(1)
    assert vault.keepers.put_if_absent("ended/vm/run", [b"ends the point"])
    vault.keepers.delete(POINT)
    assert not vault.keepers.put_if_absent("ended/vm/run", [b"ends the point"])


def impatient(vault: Vault) -> RemoteStore:
    """The repository as a proxy has it that soon gives up."""
    return RemoteStore(f"proxyfleet://{HERE}:{vault.served.port}/main", vault.served.proxy, patience=IMPATIENT)


@pytest.mark.parametrize("name", [PACK, POINT, "index/a"])
def test_a_name_that_was_given_is_never_taken_back(vault: Vault, name: str) -> None:
    vault.warden.away = True
    with pytest.raises(LinkUnavailableError, match="the warden doesn't answer"):
        impatient(vault).put_if_absent(name, [b"content"])
    assert vault.files() == {name: b"content"}, "a collector may have acted on it by now"

    vault.warden.away = False
    assert not vault.proxys.put_if_absent(name, [b"content"]), "the next try comes second, and locks it"
    with pytest.raises(PermissionError):
        (vault.root / name).unlink()


def test_nobody_hears_of_success_before_it_is_locked(vault: Vault) -> None:
    vault.warden.not_heard, vault.warden.absences = POINT, 4
    patience = Patience(first_pause_s=0.01, longest_pause_s=0.01, in_all_s=600, first_contact_s=600)
    store = RemoteStore(f"proxyfleet://{HERE}:{vault.served.port}/main", vault.served.proxy, patience=patience)
    assert store.put_if_absent(POINT, [b"content"])
    with pytest.raises(PermissionError):
        (vault.root / POINT).unlink()


def test_a_point_that_was_not_locked_at_once_keeps_its_blocks(vault: Vault) -> None:
    make_repository(vault.keepers).close()
    content = noise(8)
    with opened(vault.proxys) as repository:
        back_up(repository, content, run=RUNS[0])
        result = write_disk(repository, content, run=RUNS[1])
    vault.after(2)
    with opened(vault.keepers) as upkeep:
        end_point(upkeep.access, vm_id=VM.vm_id, run=RUNS[0])
    assert collected(vault).waiting_for, "the other run may need what is condemned"

    with opened(impatient(vault)) as repository:
        vault.warden.not_heard = f"points/{VM.vm_id}/{RUNS[1]}"
        with pytest.raises(LinkUnavailableError):
            commit(repository, result, run=RUNS[1])
        vault.warden.not_heard = None
    assert not collected(vault).waiting_for
    with opened(vault.proxys) as repository:
        assert restore(repository, commit(repository, result, run=RUNS[1])) == content


def opened(store: RemoteStore) -> Repository:
    return Repository.open(store, CREDENTIAL)


def take_over_disk(repository: Repository, parent: Point, *, run: str) -> str:
    """A disk that nothing has changed of: every segment is the parent's, and no block is looked at."""
    with repository.begin_disk(vm_id=VM.vm_id, run=run, disk_key="scsi0:0", fence=1) as writer:
        disk_of_parent = writer.parent(parent, "scsi0:0")
        assert disk_of_parent is not None
        report = report_of(writer, disk_of_parent.size_bytes).model_copy(update={"parent": parent.run})
        return writer.finish(size_bytes=disk_of_parent.size_bytes, segments=disk_of_parent.segments, report=report)


def least_left(vault: Vault) -> float:
    """Of any pack's term, in periods."""
    packs = [name for name in vault.files() if name.startswith("packs/")]
    return min(vault.warden.left_s(packs)) / PERIOD_S


def collected(vault: Vault) -> CollectionReport:
    with opened(vault.keepers) as repository:
        return collect(repository)


@pytest.mark.parametrize("upkeep", [True, False], ids=["upkeep", "no upkeep"])
def test_what_a_point_needs_stays_at_least_as_long_as_the_point(vault: Vault, upkeep: bool) -> None:
    make_repository(vault.keepers).close()
    content = noise(8)
    with opened(vault.proxys) as repository:
        point = back_up(repository, content, run=RUNS[0])
    for following in RUNS[1:]:
        vault.after(3 / 4)
        if upkeep:
            collected(vault)
        with opened(vault.proxys) as repository:
            result = take_over_disk(repository, repository.points()[-1], run=following)
            point = commit(repository, result, run=following)
        assert least_left(vault) >= 1

    with opened(vault.proxys) as repository:
        assert restore(repository, point) == content


def test_what_comes_from_a_point_that_ended_meanwhile_stays_too(vault: Vault) -> None:
    make_repository(vault.keepers).close()
    with opened(vault.proxys) as repository:
        parent = back_up(repository, noise(8), run=RUNS[0])
        vault.after(1.01)
        result = take_over_disk(repository, parent, run=RUNS[1])
        with opened(vault.keepers) as upkeep:
            end_point(upkeep.access, vm_id=VM.vm_id, run=parent.run)
        collected(vault)
        assert least_left(vault) < 1
        point = commit(repository, result, run=RUNS[1])

        assert least_left(vault) >= 1
        assert restore(repository, point) == noise(8)


def test_blocks_that_a_point_names_anew_stay_with_it(vault: Vault) -> None:
    make_repository(vault.keepers).close()
    content = noise(8)
    with opened(vault.proxys) as repository:
        back_up(repository, content, run=RUNS[0])
    vault.warden.keep()
    vault.after(1.45)
    vault.warden.keep()

    with opened(vault.proxys) as repository:
        back_up(repository, content, run=RUNS[1])
    assert least_left(vault) >= 1


def test_retention_and_collection_free_what_may_go_and_leave_the_rest(vault: Vault) -> None:
    make_repository(vault.keepers).close()
    old, new = noise(8, seed=1), noise(8, seed=2)
    with opened(vault.proxys) as repository:
        first = back_up(repository, old, run=RUNS[0])
        second = back_up(repository, new, run=RUNS[1])

    with opened(vault.keepers) as repository, pytest.raises(ObjectLockedError, match=first.run):
        end_point(repository.access, vm_id=VM.vm_id, run=first.run)
    assert collected(vault).freed_packs == 0

    vault.after(1.01)
    with opened(vault.keepers) as repository:
        assert end_point(repository.access, vm_id=VM.vm_id, run=first.run)
        assert [point.run for point in repository.points()] == [second.run]
    report = collected(vault)
    assert report.freed_packs == 0
    assert any("locked" in kept.why for kept in report.kept)

    vault.after(0.5)
    report = collected(vault)
    assert report.freed_packs > 0
    assert sum(len(data) for name, data in vault.files().items() if name.startswith("packs/")) < 12 * BLOCK
    with opened(vault.proxys) as repository:
        assert restore(repository, repository.points()[-1]) == new


def test_a_passphrase_may_be_added_and_none_is_removed(vault: Vault) -> None:
    make_repository(vault.keepers).close()
    with opened(vault.keepers) as repository:
        assert repository.unlocked is not None
        key = passphrases.wrap(repository.unlocked, b"another", repository_id=repository.id, label="second")
        passphrases.add(vault.keepers, key)
        with pytest.raises(ObjectLockedError, match="for ever"):
            remove_passphrase(vault.keepers, key.key_id, PASSPHRASE)
    assert opened(vault.proxys).points() == []
