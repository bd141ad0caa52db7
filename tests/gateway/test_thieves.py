"""What somebody gets who listens to the link, or who has stolen a proxy's certificate and write key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.contract.errors import CredentialError
from proxy_worker.link.errors import LinkRefusedError
from proxy_worker.mover.configuration import ConfigurationFile, store_configuration
from proxy_worker.repository.credentials import Credential, make_key_file
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store import StoreReadOnlyError
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.store.remote import RemoteStore
from proxy_worker.repository.withdrawal import end_point
from tests.gateway.serving import HERE, QUICK, Fleet, serving
from tests.gateway.test_requests import files_of
from tests.repository.making import (
    BLOCK,
    KEY,
    SMALL,
    VM,
    commit,
    make_repository,
    noise,
    report_of,
    restore,
    store_content,
)
from tests.surviving.relay import Relay

RUN = "20261122T190102Z-00000001"
SECRET_DISK = noise(8)
VMX = b'displayName = "web01"\nannotation = "the combination is 0451"\n' * 4


def back_up_with_configuration(repository: Repository) -> Point:
    with repository.begin_disk(vm_id=VM.vm_id, run=RUN, disk_key=KEY, fence=1, limits=SMALL) as writer:
        segments = store_content(writer, SECRET_DISK)
        result = writer.finish(
            size_bytes=len(SECRET_DISK),
            segments=segments,
            report=report_of(writer, len(SECRET_DISK)),
            configuration=store_configuration(writer, [ConfigurationFile("web01.vmx", VMX)]),
        )
    return commit(repository, result, run=RUN)


def test_a_captured_link_shows_neither_data_nor_names(tmp_path: Path) -> None:
    folder, heard = LocalStore(tmp_path / "store"), list[bytes]()
    make_repository(folder, encrypted=False).close()
    with serving(Fleet.made(tmp_path / "fleet"), {"main": folder}) as served:
        relay = Relay(served.port)
        relay.overheard = heard.append
        store = RemoteStore(f"proxyfleet://{HERE}:{relay.port}/main", served.proxy, patience=QUICK)
        with Repository.open(store, Credential()) as repository:
            point = back_up_with_configuration(repository)
            assert restore(repository, point) == SECRET_DISK
        store.close()
        relay.close()

    captured = b"".join(heard)
    kept = b"".join(files_of(tmp_path / "store").values())
    blocks = [SECRET_DISK[at : at + 64] for at in range(0, len(SECRET_DISK), BLOCK)]
    assert all(block in kept for block in blocks), "without encryption, what was sent lies there in clear"
    assert len(captured) > 2 * len(SECRET_DISK), "it crossed twice"
    names = [b"web01", RUN.encode(), b"points/", b"packs/", b"proxyfleet.Gateway"]
    assert [one for one in [*blocks, *names] if one in captured] == []


@pytest.fixture
def robbed(tmp_path: Path) -> Iterator[tuple[RemoteStore, Credential, Path]]:
    """A restore point at a gateway, and what is in a proxy that only backs up."""
    folder = LocalStore(tmp_path / "store")
    with make_repository(folder) as repository:
        back_up_with_configuration(repository)
        assert repository.unlocked
        owner, repository_id = repository.unlocked, repository.id
        key = make_key_file(owner, kind="write", repository_id=repository_id, generation=1, label="p", group="a")
    with serving(Fleet.made(tmp_path / "fleet"), {"main": folder}) as served:
        yield served.store(), Credential(key=key), tmp_path / "store"


def test_a_stolen_certificate_and_write_key_read_no_block_and_no_configuration(
    robbed: tuple[RemoteStore, Credential, Path],
) -> None:
    store, credential, folder = robbed
    with Repository.open(store, credential) as repository:
        [point] = repository.points()
        with pytest.raises(CredentialError, match="may add them but not read"):
            repository.reader(point)
        # Past what this program refuses by itself: what would it take to open a block?
        with repository.reader(point, sealed=True) as reader:
            ids = reader.segment_ids(reader.map(KEY).segments[0])
            with pytest.raises(CredentialError):
                reader.read_block(ids[:32])
            [file] = point.disk(KEY).configuration
            with pytest.raises(CredentialError):
                reader.read_file(file)

    fetched = b"".join(store.get(name) for name in files_of(folder) if "/" in name and not name.startswith("tmp/"))
    assert len(fetched) > len(SECRET_DISK)
    pieces = [
        *(SECRET_DISK[at : at + 64] for at in range(0, len(SECRET_DISK), BLOCK)),
        b"the combination",
        b"displayName",
    ]
    assert [piece for piece in pieces if piece in fetched] == []


def test_a_stolen_certificate_and_write_key_overwrite_and_delete_nothing(
    robbed: tuple[RemoteStore, Credential, Path],
) -> None:
    store, credential, folder = robbed
    before = files_of(folder)
    assert {name.partition("/")[0] for name in before} >= {"config", "keys", "packs", "index", "points"}

    for name in before:
        with pytest.raises(StoreReadOnlyError, match="may not delete"):
            store.delete(name)
        with pytest.raises(LinkRefusedError, match="may not"):
            store.replace(name, [b"garbage"])
        if name.partition("/")[0] in {"packs", "index", "points"}:
            assert not store.put_if_absent(name, [b"garbage"])
        else:
            with pytest.raises(LinkRefusedError, match="may not write"):
                store.put_if_absent(name, [b"garbage"])
    with Repository.open(store, credential) as repository:
        [point] = repository.points()
        assert repository.abandon(vm_id=VM.vm_id, run=point.run, reason="mine now"), "there is a point already"
        with pytest.raises((LinkRefusedError, StoreReadOnlyError)):
            end_point(repository.access, vm_id=VM.vm_id, run=point.run)

    after = files_of(folder)
    assert {name: after.get(name) for name in before} == before
