"""Real proxies that hot-add disks and read from storage snapshots: what they report and what they leave."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.disks import DiskBackupResult
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.outcome import (
    StorageSnapshotCreateResult,
    StorageSnapshotListResult,
    StorageSnapshotRemoveResult,
)
from proxy_worker.contract.specification import StorageSnapshotCreate, StorageSnapshotList, StorageSnapshotRemove
from proxy_worker.contract.subjects import DiskIdentity, StorageSnapshotMark
from proxy_worker.transport.hot_add import journal_of
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.vsphere.model import Vm
from tests.simulators.loop_devices import mounted
from tests.simulators.vsphere.guest import SimulatedGuest
from tests.simulators.vsphere.simulator import PASSWORD
from tests.tasks.fleet import wait_until
from tests.tasks.test_disks import PASSPHRASE, DiskFleet
from tests.transport.conftest import write_flat
from tests.transport.hot_adding import Source, access, guest, hanging, proxy, source

__all__ = ["access", "guest", "proxy", "source"]
MIB = 1 << 20


@pytest.fixture
def fleet(tmp_path: Path, valkey: EmbeddedValkey) -> Iterator[DiskFleet]:
    made = DiskFleet(tmp_path / "fleet", valkey)
    (tmp_path / "fleet").mkdir()
    made.prepare()
    yield made
    made.end()


def test_a_killed_proxy_detaches_at_its_next_start_what_it_had_attached(
    fleet: DiskFleet, proxy: Vm, guest: SimulatedGuest, access: VsphereAccess, source: Source
) -> None:
    session = source.session
    settings = [f'product_uuid = "{access.offer.product_uuid}"', f'guest_disks_dir = "{guest.folder}"']
    one = fleet.add_proxy("proxy-1", settings=settings)
    (one.folder / "secrets/main.passphrase").write_text(PASSPHRASE)
    (one.folder / "secrets/vc1.password").write_text(PASSWORD)
    fleet.start()
    disk = DiskIdentity(key="scsi0:0", address=source.address(), size_bytes=len(source.content[0]))
    body = fleet.backup(disk)

    guest.blind = True
    task = fleet.submit(body)
    fleet.dispatch(task, body, proxy="proxy-1")
    wait_until(lambda: hanging(session, proxy), "the disk is attached")
    assert one.process is not None
    os.killpg(one.process.pid, signal.SIGKILL)
    one.process.wait()
    assert hanging(session, proxy) == {source.snapshot.disks[0].path}

    guest.blind = False
    fleet.start("proxy-1")
    assert hanging(session, proxy) == set()
    seen = fleet.view("proxy-1")
    assert seen is not None
    assert TransportMode.VIRTUAL_APPLIANCE in seen.registration.vsphere.modes

    ended = fleet.run(body, proxy="proxy-1")
    assert isinstance(ended.result, DiskBackupResult), ended.failure
    assert ended.result.report.mode is TransportMode.VIRTUAL_APPLIANCE
    assert "hot-added as /dev/loop" in ended.result.report.mode_reason
    assert hanging(session, proxy) == set()
    assert journal_of(access).all() == ()
    assert source.thaw()


@pytest.mark.parametrize(("kind", "provider"), [("btrfs", "btrfs"), ("xfs", "reflink")])
def test_a_proxy_reads_from_the_storage_snapshot_that_it_made(
    fleet: DiskFleet, source: Source, tmp_path: Path, kind: str, provider: str
) -> None:
    with mounted(kind, tmp_path) as point:
        tables = f'[datastores.ds1]\npath = "{point}"\n[datastores.ds1.storage_snapshot]\nprovider = "{provider}"'
        one = fleet.add_proxy("proxy-1", tables=tables)
        (one.folder / "secrets/main.passphrase").write_text(PASSPHRASE)
        (point / "web").mkdir()
        before = random.Random(5).randbytes(3 * MIB)
        write_flat(point / "web", "web", before)
        fleet.start()
        seen = fleet.view("proxy-1")
        assert seen is not None
        assert TransportMode.STORAGE_SNAPSHOT in seen.registration.datastores["ds1"]

        mark = StorageSnapshotMark(installation="i1", journal="run-1")
        made = fleet.run(
            StorageSnapshotCreate(datastore="ds1", mark=mark, paths=("web/web.vmdk",)), proxy="proxy-1"
        )
        assert isinstance(made.result, StorageSnapshotCreateResult), made.failure
        (point / "web/web-flat.vmdk").write_bytes(bytes(3 * MIB))  # the VM's own snapshot is gone, and it goes on

        address = source.address().model_copy(
            update={"datastore": "ds1", "path": "web/web.vmdk", "storage_snapshot": mark}
        )
        disk = DiskIdentity(key="scsi0:0", address=address, size_bytes=3 * MIB)
        ended = fleet.run(fleet.backup(disk), proxy="proxy-1")
        assert isinstance(ended.result, DiskBackupResult), ended.failure
        report = ended.result.report
        assert report.mode is TransportMode.STORAGE_SNAPSHOT
        assert report.stored_bytes > 2 * MIB, "what was frozen, not the zeros that are there now"

        listed = fleet.run(StorageSnapshotList(datastore="ds1", installation="i1"), proxy="proxy-1").result
        assert isinstance(listed, StorageSnapshotListResult)
        assert listed.journals == ("run-1",)
        removed = fleet.run(StorageSnapshotRemove(datastore="ds1", mark=mark), proxy="proxy-1").result
        assert isinstance(removed, StorageSnapshotRemoveResult)
        assert removed.existed
        gone = fleet.run(fleet.backup(disk), proxy="proxy-1")
        assert gone.failure is not None
        assert gone.failure.code == "storage-snapshot-gone"
        fleet.end()
