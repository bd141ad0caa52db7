"""What is damaged in the repository and still on the disk is stored anew, although nothing says that it changed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from proxy_worker.repository.collector import collect
from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.packs import read_footer
from proxy_worker.repository.proving import ProofSettings, prove
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from tests.mover.disks import BLOCK, back_up, make_disk, new_vm, request, restore

EVERYTHING = ProofSettings(everything=True)


@pytest.mark.parametrize("tracked", [False, True], ids=["digests", "changed areas"])
def test_the_next_backup_stores_it_anew(tmp_path: Path, tracked: bool) -> None:
    content = random.Random(1).randbytes(20 * BLOCK)
    disk, vm = make_disk(tmp_path / "disk.raw", len(content), [(0, content)]), new_vm()
    folder = tmp_path / "repository"
    store = LocalStore(folder)
    Repository.create(store, passphrase=b"some words", block_size=BLOCK).close()
    with Repository.open(store, Credential(passphrase=b"some words")) as repository:
        first, _ = back_up(repository, disk, request(vm))
        [pack_id] = pack_ids(store)
        [(offset, _, _), *_] = read_footer(store, pack_id)
        [path] = (folder / "packs").glob("*/*")
        path.chmod(0o644)
        whole = bytearray(path.read_bytes())
        whole[offset + 7] ^= 1
        path.write_bytes(whole)
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
