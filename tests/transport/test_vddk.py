"""Network mode and SAN for a vCenter's disks: real nbdkit, a stand-in for VMware's library, a simulated vCenter."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from proxy_worker.contract.errors import ConfigurationError, ProxyfleetError
from proxy_worker.contract.names import AUTOMATIC, TransportMode
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.contract.subjects import (
    DiskAddress,
    TransportPreference,
    VcenterReference,
    VsphereDisk,
    VsphereFile,
)
from proxy_worker.transport.command import ServerFailedError
from proxy_worker.transport.connections import Connections, DatastoreConnection
from proxy_worker.transport.datastore import DiskNotFoundError
from proxy_worker.transport.failover import FailoverFailedError
from proxy_worker.transport.probing import own_product_uuid, probe_vsphere
from proxy_worker.transport.select import NoTransportError, open_disk
from proxy_worker.transport.source import ConnectionLostError, DiskSource
from proxy_worker.transport.vddk import VddkMissingError
from proxy_worker.transport.vsphere_access import VcenterCertificateError, VsphereAccess, fetch_configuration
from proxy_worker.vsphere.download import DatastoreFileMissingError, DatastoreFileTooLargeError, download
from proxy_worker.vsphere.faults import DiskLockedError, MissingPrivilegeError
from proxy_worker.vsphere.session import Session, VcenterPasswordError, VcenterSecretError
from proxy_worker.vsphere.snapshots import Mark, Quiesce, create
from proxy_worker.vsphere.trust import CertificateUntrustedError, ThumbprintChangedError
from tests.simulators.vsphere.simulator import NBDKIT, PASSWORD, USER, VsphereSimulator
from tests.vsphere.conftest import IMPATIENT, certificate_of
from tests.vsphere.machines import MIB, make_vm

from .conftest import free_port, read_all, wait_for

DIRECT, NETWORK = TransportMode.DIRECT_STORAGE, TransportMode.NETWORK
SIZE = 8 * MIB
CONTENT = b"".join(hashlib.sha256(str(at).encode()).digest() * 2048 for at in range(SIZE // 65536))
DATASTORE = "LocalDS_0"


@dataclass(frozen=True)
class Frozen:
    """A VM's disk, frozen in a snapshot, as the scheduler would describe it."""

    address: DiskAddress
    file: Path
    """What the stand-in serves."""
    nvram: VsphereFile
    vmx: VsphereFile


@pytest.fixture(scope="module")
def frozen_once(vsphere_server: VsphereSimulator) -> Frozen:
    vsphere_server.reset()
    reference = VcenterReference(
        name="vc1",
        host=vsphere_server.host,
        port=vsphere_server.port,
        user=USER,
        credential="vc1",
        thumbprint=hashlib.sha256(certificate_of(vsphere_server)).hexdigest(),
    )
    with Session(VsphereAccess(Path(), Path()).endpoint(reference), PASSWORD) as session:
        vm = make_vm(session, SIZE)
        path = vm.disks[0].path or ""
        vsphere_server.write(path, (0, CONTENT))
        made = create(session, vm, Mark("installation-t", "run-1"), Quiesce.NEVER, IMPATIENT)
        vsphere_server.write(path, (0, b"later"))
        disk = VsphereDisk(
            vcenter=reference,
            vm=vm.ref,
            snapshot=made.ref,
            key=made.disks[0].key,
            path=made.disks[0].path or "",
            controller="scsi",
            datastore_type="VMFS",
        )
        folder = f"[{DATASTORE}] {vm.name}/{vm.name}"
        return Frozen(
            DiskAddress(datastore="ds1", path=path.partition("] ")[2], vsphere=disk),
            vsphere_server.frozen_disk(made.ref, disk.path),
            VsphereFile(vcenter=reference, datacenter="DC0", path=f"{folder}.nvram"),
            VsphereFile(vcenter=reference, datacenter="DC0", path=f"{folder}.vmx"),
        )


@pytest.fixture
def frozen(frozen_once: Frozen, vsphere: VsphereSimulator, monkeypatch: pytest.MonkeyPatch) -> Frozen:
    """The disk, with nbdkit as it is where VDDK is installed."""
    monkeypatch.setenv("PATH", f"{NBDKIT.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SIMULATED_VDDK_DISKS", str(vsphere.frozen))
    monkeypatch.setenv("SIMULATED_VDDK_PASSWORD", PASSWORD)
    monkeypatch.setenv("SIMULATED_VDDK_LUNS", DATASTORE)
    return frozen_once


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "vc1.password").write_text(PASSWORD + "\n")
    return folder


@pytest.fixture
def access(secrets: Path, tmp_path: Path, frozen: Frozen) -> Iterator[VsphereAccess]:
    """A proxy that has found all that it needs."""
    offer = probe_vsphere(Connections(), secrets_dir=secrets)
    opened = VsphereAccess(secrets_dir=secrets, state_dir=tmp_path, offer=offer)
    yield opened
    opened.close()


def preferring(mode: TransportMode | None = None, *, failover: bool = True) -> TransportPreference:
    return TransportPreference(mode=mode or AUTOMATIC, failover_to_network=failover)


def connected(**settings: object) -> Connections:
    return Connections(datastores={"ds1": DatastoreConnection.model_validate(settings)})


def with_vcenter(address: DiskAddress, **changes: object) -> DiskAddress:
    disk = address.vsphere
    assert disk is not None
    return address.model_copy(
        update={"vsphere": disk.model_copy(update={"vcenter": disk.vcenter.model_copy(update=changes)})}
    )


def with_disk(address: DiskAddress, **changes: object) -> DiskAddress:
    assert address.vsphere is not None
    return address.model_copy(update={"vsphere": address.vsphere.model_copy(update=changes)})


def nbdkits() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.name() == "nbdkit"]


def kill_nbdkit() -> None:
    (server,) = nbdkits()
    server.send_signal(signal.SIGKILL)
    wait_for(lambda: server.status() == psutil.STATUS_ZOMBIE, "nbdkit has died")


def read_piecewise(source: DiskSource, in_between: Callable[[], object]) -> bytes:
    """The whole disk in pieces, with something happening in the middle."""
    found = bytearray(source.size_bytes)
    for at in range(0, source.size_bytes, MIB):
        if at == source.size_bytes // 2:
            in_between()
        source.read_into(at, memoryview(found)[at : at + MIB])
    return bytes(found)


def test_network_mode_serves_what_the_snapshot_froze_and_leaves_nothing(
    frozen: Frozen, access: VsphereAccess
) -> None:
    with open_disk(frozen.address, preferring(), Connections(), access) as source:
        (server,) = nbdkits()
        command = " ".join(server.cmdline())
        assert (source.mode, source.size_bytes) == (NETWORK, SIZE)
        assert read_all(source) == CONTENT
    assert PASSWORD not in command
    assert "transports=nbdssl:nbd" in command
    assert "--readonly" in command
    assert source.mode_reason == (
        "network, automatic choice (no storage_snapshot: this proxy isn't connected to datastore ds1; "
        "no direct_storage: this proxy isn't connected to datastore ds1; "
        "no virtual_appliance: this proxy is no VM of vSphere, as far as its firmware says); VDDK"
    )
    assert nbdkits() == []


def test_network_mode_is_encrypted_or_nothing_where_the_proxy_says_so(
    frozen: Frozen, access: VsphereAccess
) -> None:
    strict = replace(access, encryption_to_host=True)
    with open_disk(frozen.address, preferring(), Connections(), strict) as source:
        (server,) = nbdkits()
        assert "transports=nbdssl" in server.cmdline()
        assert read_all(source) == CONTENT


def test_san_is_direct_storage_through_vddk(frozen: Frozen, access: VsphereAccess) -> None:
    with open_disk(frozen.address, preferring(), connected(san=True), access) as source:
        (server,) = nbdkits()
        assert "transports=san" in server.cmdline()
        assert source.mode is DIRECT
        assert read_all(source) == CONTENT


@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_vddk_gets_a_sha1_whatever_is_pinned(
    frozen: Frozen, access: VsphereAccess, vsphere: VsphereSimulator, digest: str
) -> None:
    thumbprint = hashlib.new(digest, certificate_of(vsphere)).hexdigest()
    with open_disk(
        with_vcenter(frozen.address, thumbprint=thumbprint), preferring(), Connections(), access
    ) as source:
        assert source.size_bytes == SIZE


@pytest.mark.parametrize("mode", [NETWORK, DIRECT])
def test_nbdkits_death_in_mid_read_is_a_failover_or_a_named_error(
    frozen: Frozen, access: VsphereAccess, mode: TransportMode
) -> None:
    with open_disk(frozen.address, preferring(mode), connected(san=True), access) as source:
        if mode is DIRECT:
            assert read_piecewise(source, kill_nbdkit) == CONTENT
            assert source.mode is NETWORK
            assert f"; network from {SIZE // 2} on, because direct_storage failed: " in source.mode_reason
            assert "ended by signal 9" in source.mode_reason
        else:
            with pytest.raises(ConnectionLostError, match="the server is gone: it was ended by signal 9"):
                read_piecewise(source, kill_nbdkit)
    assert nbdkits() == []


def test_a_lun_that_the_proxy_does_not_see_is_a_failover_before_reading(
    frozen: Frozen, access: VsphereAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMULATED_VDDK_LUNS", "another")
    with open_disk(frozen.address, preferring(), connected(san=True), access) as source:
        assert source.mode is NETWORK
        assert "direct_storage failed: " in source.mode_reason
        assert "You do not have access rights to this file" in source.mode_reason
        assert read_all(source) == CONTENT
    with pytest.raises(ServerFailedError, match="access rights"):
        open_disk(frozen.address, preferring(DIRECT, failover=False), connected(san=True), access)


def test_both_modes_failing_names_both(
    frozen: Frozen, access: VsphereAccess, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMULATED_VDDK_LUNS", "another")
    with open_disk(frozen.address, preferring(), Connections(), access) as source:
        assert source.mode is NETWORK
    (secrets / "vc1.password").write_text("wrong")
    with pytest.raises(FailoverFailedError, match=r"direct_storage: .*; network: .*incorrect user name"):
        open_disk(frozen.address, preferring(), connected(san=True), access)


@pytest.mark.parametrize(
    ("password", "error"),
    [("wrong", VcenterPasswordError), ("", VcenterSecretError), (None, VcenterSecretError)],
)
def test_a_password_that_is_wrong_or_missing(
    frozen: Frozen, access: VsphereAccess, secrets: Path, password: str | None, error: type[ProxyfleetError]
) -> None:
    path = secrets / "vc1.password"
    path.unlink() if password is None else path.write_text(password)
    with pytest.raises(error, match="password") as failure:
        open_disk(frozen.address, preferring(), Connections(), access)
    assert failure.value.exit_code == 6
    assert nbdkits() == []


def test_a_locked_disk_is_named_and_may_be_tried_again(frozen: Frozen, access: VsphereAccess) -> None:
    lock = Path(f"{frozen.file}.lck")
    lock.touch()
    try:
        with pytest.raises(DiskLockedError, match="Failed to lock the file") as failure:
            open_disk(frozen.address, preferring(), Connections(), access)
    finally:
        lock.unlink()
    assert failure.value.retryable


def test_a_disk_that_was_deleted_meanwhile(frozen: Frozen, access: VsphereAccess) -> None:
    with pytest.raises(DiskNotFoundError, match="A file was not found"):
        open_disk(with_disk(frozen.address, snapshot="snapshot-0"), preferring(), Connections(), access)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"thumbprint": "ab" * 32}, ThumbprintChangedError),
        ({"thumbprint": "ab" * 20}, ThumbprintChangedError),
        ({"thumbprint": None}, CertificateUntrustedError),
        ({"thumbprint": "ab"}, ConfigurationError),
    ],
)
def test_a_vcenter_that_can_not_be_trusted_is_sent_no_password(
    frozen: Frozen, access: VsphereAccess, changes: dict[str, object], error: type[ProxyfleetError]
) -> None:
    with pytest.raises(error):
        open_disk(with_vcenter(frozen.address, **changes), preferring(), Connections(), access)


def test_a_vcenter_that_is_gone(frozen: Frozen, access: VsphereAccess) -> None:
    with pytest.raises(VcenterCertificateError, match="can't ask for its certificate"):
        open_disk(with_vcenter(frozen.address, port=free_port()), preferring(), Connections(), access)


def test_a_library_that_is_missing_after_all(frozen: Frozen, access: VsphereAccess, tmp_path: Path) -> None:
    without = VsphereAccess(access.secrets_dir, tmp_path, access.offer, vddk_libdir=tmp_path)
    with pytest.raises(VddkMissingError, match=r"libvixDiskLib.*docs/transport-modes.md"):
        open_disk(frozen.address, preferring(), Connections(), without)


def test_what_a_proxy_finds_when_it_starts(frozen: Frozen, secrets: Path, tmp_path: Path) -> None:
    firmware = tmp_path / "dmi"
    firmware.mkdir()
    (firmware / "sys_vendor").write_text("VMware, Inc.\n")
    (firmware / "product_uuid").write_text("42010B4E-0000-4000-8000-000000000001\n")
    found = probe_vsphere(Connections(), secrets_dir=secrets, firmware=firmware)
    assert found == VsphereOffer(
        modes=(TransportMode.VIRTUAL_APPLIANCE, NETWORK),
        passwords=("vc1",),
        product_uuid="42010b4e-0000-4000-8000-000000000001",
    )
    assert probe_vsphere(Connections(), secrets_dir=secrets, firmware=firmware, product_uuid="").modes == (NETWORK,)
    (firmware / "sys_vendor").write_text("QEMU\n")
    assert own_product_uuid(firmware) is None
    assert own_product_uuid(tmp_path / "none") is None


def test_what_a_proxy_says_that_it_can_not_do(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lun = connected(san=True)
    plain = probe_vsphere(lun, secrets_dir=secrets)
    assert (plain.modes, plain.refusals[NETWORK]) == ((), "nbdkit has no vddk plug-in on this proxy")
    assert lun.offered(plain) == {"ds1": ()}
    monkeypatch.setenv("PATH", f"{NBDKIT.parent}:{os.environ['PATH']}")
    without_library = probe_vsphere(lun, secrets_dir=secrets, vddk_libdir=tmp_path)
    assert "doesn't find VMware's VDDK: libvixDiskLib.so.8: cannot open" in without_library.refusals[NETWORK]
    assert lun.offered(probe_vsphere(lun, secrets_dir=secrets)) == {"ds1": (DIRECT,)}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "package nbdkit" in probe_vsphere(lun, secrets_dir=secrets).refusals[NETWORK]


def test_a_proxy_without_vddk_says_so(frozen: Frozen, secrets: Path, tmp_path: Path) -> None:
    offer = VsphereOffer(refusals={NETWORK: "nbdkit has no vddk plug-in on this proxy"}, passwords=("vc1",))
    with pytest.raises(NoTransportError, match="network: nbdkit has no vddk plug-in on this proxy"):
        open_disk(frozen.address, preferring(), Connections(), VsphereAccess(secrets, tmp_path, offer))


def test_files_of_a_vms_configuration(frozen: Frozen, access: VsphereAccess, vsphere: VsphereSimulator) -> None:
    assert b"displayName" in fetch_configuration(frozen.vmx, access)
    nvram = fetch_configuration(frozen.nvram, access)
    assert nvram.startswith(b"MRVN")
    vsphere.expire_sessions()
    assert fetch_configuration(frozen.nvram, access) == nvram
    gone = frozen.vmx.model_copy(update={"path": f"[{DATASTORE}] gone/gone.vmx"})
    with pytest.raises(DatastoreFileMissingError):
        fetch_configuration(gone, access)
    with (
        access.sessions(frozen.vmx.vcenter).borrow() as borrowed,
        pytest.raises(DatastoreFileTooLargeError, match="more than the 100 bytes"),
    ):
        download(borrowed, "DC0", frozen.nvram.path, limit_bytes=100)
    vsphere.revoke(["Datastore.FileManagement"])
    with pytest.raises(MissingPrivilegeError):
        fetch_configuration(frozen.vmx, access)
