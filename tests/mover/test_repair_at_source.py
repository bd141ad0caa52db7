"""What is damaged in the repository and still on the disk is stored anew, although nothing says that it changed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from proxy_worker.mover.backup import back_up_disk
from proxy_worker.mover.checkpoint import SegmentTrack
from proxy_worker.mover.control import Unattended
from proxy_worker.mover.plan import Geometry
from proxy_worker.repository.collector import collect
from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.packs import read_footer
from proxy_worker.repository.proving import ProofSettings, prove
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.transport.named import open_path
from tests.mover.disks import BLOCK, back_up, commit, make_disk, new_vm, request, restore
from tests.repository.making import CHEAP, store_content

EVERYTHING = ProofSettings(everything=True)


def damage_first_chunk(folder: Path, store: LocalStore) -> None:
    """Flip a bit of the first block that the only pack holds."""
    [pack_id] = pack_ids(store)
    [(offset, _, _), *_] = read_footer(store, pack_id)
    [path] = (folder / "packs").glob("*/*")
    path.chmod(0o644)
    whole = bytearray(path.read_bytes())
    whole[offset + 7] ^= 1
    path.write_bytes(whole)


@pytest.mark.parametrize("tracked", [False, True], ids=["digests", "changed areas"])
def test_the_next_backup_stores_it_anew(tmp_path: Path, tracked: bool) -> None:
    content = random.Random(1).randbytes(20 * BLOCK)
    disk, vm = make_disk(tmp_path / "disk.raw", len(content), [(0, content)]), new_vm()
    folder = tmp_path / "repository"
    store = LocalStore(folder)
    Repository.create(store, passphrase=b"some words", block_size=BLOCK, kdf_cost=CHEAP).close()
    with Repository.open(store, Credential(passphrase=b"some words")) as repository:
        first, _ = back_up(repository, disk, request(vm))
        damage_first_chunk(folder, store)
        assert [point.damaged for point in prove(repository, EVERYTHING).points] == [True]

        areas = [(5 * BLOCK, BLOCK)] if tracked else None
        _, report = back_up(repository, disk, request(vm, areas=areas, parent=first.run if tracked else None))

        assert report.unchanged_bytes == 19 * BLOCK
        assert BLOCK < report.stored_bytes < 2 * BLOCK
        if tracked:
            assert "are damaged in the repository" in (report.full_read_reason or "")
        assert [point.damaged for point in prove(repository, EVERYTHING).points] == [False, False]
        collect(repository)
        assert prove(repository, EVERYTHING).findings == ()
        restore(repository, first, tmp_path / "restored.raw")
    assert (tmp_path / "restored.raw").read_bytes() == content


def test_an_attempt_that_is_resumed_stores_it_anew(tmp_path: Path) -> None:
    """What an earlier attempt stored is needed by no restore point yet: nobody else would have noticed."""
    content = random.Random(1).randbytes(20 * BLOCK)
    disk, asked = make_disk(tmp_path / "disk.raw", len(content), [(0, content)]), request(new_vm())
    folder = tmp_path / "repository"
    store = LocalStore(folder)
    Repository.create(store, passphrase=b"some words", block_size=BLOCK, kdf_cost=CHEAP).close()
    with Repository.open(store, Credential(passphrase=b"some words")) as repository:
        about = {"vm_id": asked.vm.vm_id, "run": asked.run, "disk_key": asked.disk.key}
        with repository.begin_disk(**about, fence=1) as writer:
            track = SegmentTrack(Geometry(len(content), BLOCK, writer.blocks_per_segment), writer, [], now_s=0.0)
            track.settle(0, *store_content(writer, content))
            writer.wait_durable(writer.mark())
            checkpoint = track.due(0.0)
        assert checkpoint is not None
        damage_first_chunk(folder, store)
        prove(repository, EVERYTHING)

        with open_path(str(disk)) as source:
            result = back_up_disk(source, repository, asked, fence=2, checkpoint=checkpoint, control=Unattended())
        point = commit(repository, asked, result.sealed_result, fence=2)

        assert result.report.resumed_bytes == 0
        restore(repository, point, tmp_path / "restored.raw")
    assert (tmp_path / "restored.raw").read_bytes() == content
