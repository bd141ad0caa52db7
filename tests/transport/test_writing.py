"""Disks that are written: over NBD by real servers, and flat VMDKs in place."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.contract.subjects import DiskAddress, VcenterReference, VsphereDisk
from proxy_worker.transport.command import NbdServer
from proxy_worker.transport.connections import Connections, DatastoreConnection
from proxy_worker.transport.datastore import Datastore
from proxy_worker.transport.image import open_image
from proxy_worker.transport.nbd.handshake import NbdRefusedError
from proxy_worker.transport.nbd.sink import NbdSink
from proxy_worker.transport.open_to_write import NoWriteModeError, open_to_write
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.transport.writing import DiskUnwritableError, NoRoomError, OutsideDiskError, SinkLostError
from proxy_worker.transport.writing_direct import DirectSink, DiskHeldError, NotFlatError

MIB = 1 << 20
SIZE = 16 * MIB
CHANCE = random.Random(7)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk full of ones."""
    path = tmp_path / "disk.img"
    path.write_bytes(b"\1" * SIZE)
    return path


def nbdkit(*words: str) -> NbdServer:
    """A server that is ended by whoever closes it."""
    return NbdServer(
        lambda folder: ["nbdkit", "--foreground", "--unix", str(folder / "nbd.sock"), *words], what="a test's disk"
    )


def qemu_nbd(path: Path) -> NbdServer:
    return NbdServer(
        lambda folder: ["qemu-nbd", "-f", "raw", "--persistent", "-k", str(folder / "nbd.sock"), str(path)],
        what="a test's disk",
    )


def sink_of(server: NbdServer) -> NbdSink:
    return server.connected(lambda uri: NbdSink(uri, reason="test"))


@pytest.mark.parametrize("serve", [lambda path: nbdkit("file", str(path)), qemu_nbd], ids=["nbdkit", "qemu-nbd"])
def test_what_is_written_over_nbd_is_there(disk: Path, serve: Callable[[Path], NbdServer]) -> None:
    data = CHANCE.randbytes(3 * MIB + 512)
    server = serve(disk)
    try:
        with sink_of(server) as sink:
            assert sink.size_bytes == SIZE
            sink.write_from(MIB, memoryview(data))
            sink.zero(8 * MIB, 5 * MIB)
            sink.write_from(SIZE - 512, memoryview(data[:512]))
            sink.flush()
            written = disk.read_bytes()
    finally:
        server.close()

    expected = bytearray(b"\1" * SIZE)
    expected[MIB : MIB + len(data)] = data
    expected[8 * MIB : 13 * MIB] = bytes(5 * MIB)
    expected[SIZE - 512 :] = data[:512]
    assert written == bytes(expected)


def test_a_server_without_zeroing_is_sent_zeros(disk: Path) -> None:
    server = nbdkit("--filter=nozero", "file", str(disk))
    try:
        with sink_of(server) as sink:
            sink.zero(MIB, 3 * MIB + 512)
            sink.flush()
    finally:
        server.close()
    assert disk.read_bytes() == b"\1" * MIB + bytes(3 * MIB + 512) + b"\1" * (SIZE - 4 * MIB - 512)


def test_a_server_that_lets_nobody_write_is_refused(disk: Path) -> None:
    server = nbdkit("--readonly", "file", str(disk))
    try:
        with pytest.raises(Exception, match="lets nobody write") as raised:
            sink_of(server)
        assert "NbdRefused" in type(raised.value).__name__ or isinstance(raised.value.__cause__, NbdRefusedError)
    finally:
        server.close()


@pytest.mark.parametrize(("error", "kind"), [("EIO", DiskUnwritableError), ("ENOSPC", NoRoomError)])
def test_a_server_that_cannot_write_is_named(disk: Path, error: str, kind: type[Exception]) -> None:
    server = nbdkit("--filter=error", "file", str(disk), f"error-pwrite={error}", "error-pwrite-rate=100%")
    try:
        with sink_of(server) as sink, pytest.raises(kind, match="can't write"):
            sink.write_from(0, memoryview(bytes(4096)))
    finally:
        server.close()


def test_a_server_that_dies_is_lost(disk: Path) -> None:
    server = nbdkit("file", str(disk))
    with sink_of(server) as sink:
        server.close()
        with pytest.raises(SinkLostError) as raised:
            sink.write_from(0, memoryview(bytes(MIB)))
    assert raised.value.retryable


def test_nothing_is_written_past_the_end(disk: Path) -> None:
    server = nbdkit("file", str(disk))
    try:
        with sink_of(server) as sink, pytest.raises(OutsideDiskError):
            sink.write_from(SIZE - 10, memoryview(bytes(11)))
    finally:
        server.close()


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    """A datastore with one VM's flat disk, full of ones."""
    folder = tmp_path / "ds" / "web"
    folder.mkdir(parents=True)
    (folder / "web.vmdk").write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="vmfs"\n\nRW {SIZE // 512} VMFS "web-flat.vmdk"\n'
    )
    (folder / "web-flat.vmdk").write_bytes(b"\1" * SIZE)
    return tmp_path / "ds"


def test_a_flat_disk_is_written_in_place(datastore: Path) -> None:
    data = CHANCE.randbytes(MIB)
    with DirectSink(open_image(Datastore("ds", datastore), "web/web.vmdk"), reason="test") as sink:
        sink.write_from(2 * MIB, memoryview(data))
        sink.zero(4 * MIB, 4 * MIB)
        sink.flush()
        with pytest.raises(OutsideDiskError):
            sink.zero(SIZE, 1)

    flat = datastore / "web/web-flat.vmdk"
    expected = b"\1" * 2 * MIB + data + b"\1" * MIB + bytes(4 * MIB) + b"\1" * 8 * MIB
    assert flat.read_bytes() == expected
    assert flat.stat().st_blocks * 512 < SIZE  # the zeros are a hole


def test_two_writers_of_one_disk_exclude_each_other(datastore: Path) -> None:
    place = Datastore("ds", datastore)
    with DirectSink(open_image(place, "web/web.vmdk"), reason="test"), pytest.raises(DiskHeldError):
        DirectSink(open_image(place, "web/web.vmdk"), reason="test")


def test_a_disk_of_several_files_is_not_written_in_place(datastore: Path) -> None:
    (datastore / "web/two.vmdk").write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="twoGbMaxExtentFlat"\n\nRW {SIZE // 512} FLAT "web-flat.vmdk" 0\nRW 8 ZERO\n'
        'ddb.adapterType = "lsilogic"\n'
    )
    with pytest.raises(NotFlatError):
        DirectSink(open_image(Datastore("ds", datastore), "web/two.vmdk"), reason="test")


def address(datastore: str | None) -> DiskAddress:
    vcenter = VcenterReference(name="vc1", host="vc1.example", user="backup", credential="vc1")
    disk = VsphereDisk(
        vcenter=vcenter, vm="vm-1", key=2000, path="[ds] web/web.vmdk", controller="scsi", datastore_type="NFS"
    )
    return DiskAddress(datastore=datastore, path="web/web.vmdk", vsphere=disk)


def access(tmp_path: Path, *modes: TransportMode, passwords: tuple[str, ...] = ()) -> VsphereAccess:
    offer = VsphereOffer(modes=modes, passwords=passwords)
    return VsphereAccess(secrets_dir=tmp_path, state_dir=tmp_path, offer=offer)


def test_a_mounted_datastore_is_written_in_place_whatever_else_there_is(datastore: Path, tmp_path: Path) -> None:
    connections = Connections(datastores={"ds": DatastoreConnection(path=datastore)})
    with open_to_write(address("ds"), connections, access(tmp_path, TransportMode.NETWORK)) as sink:
        assert sink.mode is TransportMode.DIRECT_STORAGE
        assert "automatic choice" in sink.mode_reason


@pytest.mark.parametrize(
    ("declared", "offered", "said"),
    [
        (None, (), "its datastore isn't declared; network: this proxy has no VDDK"),
        ("other", (TransportMode.NETWORK,), "isn't mounted on this proxy; network: this proxy has no vc1.password"),
    ],
)
def test_a_proxy_that_cannot_write_says_why_of_every_mode(
    datastore: Path, tmp_path: Path, declared: str | None, offered: tuple[TransportMode, ...], said: str
) -> None:
    connections = Connections(datastores={"ds": DatastoreConnection(path=datastore)})
    with pytest.raises(NoWriteModeError) as raised:
        open_to_write(address(declared), connections, access(tmp_path, *offered))
    assert said in raised.value.why
