"""Network mode by URI and by command, and failing over to it, before and in the middle of a read."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import DiskAddress, TransportPreference
from proxy_worker.transport import command
from proxy_worker.transport.command import ServerFailedError
from proxy_worker.transport.connections import Connections, DatastoreConnection
from proxy_worker.transport.datastore import LinkOutsideError
from proxy_worker.transport.failover import FailoverFailedError, FailoverSource
from proxy_worker.transport.nbd.handshake import NbdConnectError
from proxy_worker.transport.nbd.source import NbdSource
from proxy_worker.transport.nbd.uri import parse_uri
from proxy_worker.transport.select import open_disk
from proxy_worker.transport.source import (
    ConnectionLostError,
    DiskShrunkError,
    DiskSource,
    DiskUnreadableError,
    WrongDiskServedError,
)

from .conftest import MIB, NbdKit, convert, read_all, write_flat

DISK = DiskAddress(datastore="ds1", path="web01.vmdk")
ANY = TransportPreference()
Start = Callable[..., NbdKit]


def connected(
    *, path: Path | None = None, uri: str | None = None, command: tuple[str, ...] | None = None
) -> Connections:
    connection = DatastoreConnection(path=path, network_uri=uri, network_command=command)
    return Connections(datastores={"ds1": connection})


def nbdkit_of(folder: Path) -> tuple[str, ...]:
    return ("nbdkit", "--foreground", "--unix", "{socket}", "file", f"{folder}/{{path}}")


def servers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.name() == "nbdkit"]


def test_a_command_serves_the_flat_extent_of_a_disk_the_proxy_can_not_see(folder: Path, content: bytes) -> None:
    write_flat(folder, "web01", content)
    with open_disk(DISK, ANY, connected(command=nbdkit_of(folder))) as source:
        assert source.mode == TransportMode.NETWORK
        assert "no direct_storage: datastore ds1 has no path" in source.mode_reason
        assert read_all(source) == content
        assert len(servers()) == 1
    assert servers() == []


def test_a_uri_names_the_export_by_the_disks_path(nbdkit: Start) -> None:
    name = ("exportname-strict=true", "exportname=web 01/web%2001-flat.vmdk")
    server = nbdkit("--filter=exportname", "memory", "1M", *name)
    uri = f"nbd+unix:///{{path}}?socket={server.socket}"
    with open_disk(DiskAddress(datastore="ds1", path="web 01/web%2001.vmdk"), ANY, connected(uri=uri)) as source:
        assert (source.mode, source.size_bytes) == (TransportMode.NETWORK, MIB)
    with pytest.raises(NbdConnectError, match="no such export"):
        open_disk(DISK, ANY, connected(uri=uri))


def test_a_command_that_understands_vmdk(folder: Path, raw_image: Path, content: bytes) -> None:
    convert(raw_image, folder / "web01.vmdk", "monolithicSparse")
    command = ("qemu-nbd", "-r", "-t", "-e", "8", "-k", "{socket}", "-f", "vmdk", f"{folder}/{{vmdk}}")
    with open_disk(DISK, ANY, connected(command=command)) as source:
        assert read_all(source) == content


@pytest.mark.parametrize("visible", [True, False])
def test_the_container_is_never_taken_for_the_disk(folder: Path, raw_image: Path, visible: bool) -> None:
    convert(raw_image, folder / "web01.vmdk", "monolithicSparse")
    command = ("nbdkit", "-f", "-U", "{socket}", "file", f"{folder}/{{vmdk}}")
    connections = connected(path=folder if visible else None, command=command)
    with pytest.raises(WrongDiskServedError):
        open_disk(DISK, TransportPreference(mode=TransportMode.NETWORK), connections)


def test_a_command_that_fails_is_quoted(folder: Path) -> None:
    with pytest.raises(ServerFailedError, match=r"web01-flat.vmdk.*No such file"):
        open_disk(DISK, ANY, connected(command=nbdkit_of(folder)))
    with pytest.raises(ServerFailedError, match="not-installed"):
        open_disk(DISK, ANY, connected(command=("not-installed", "{socket}")))
    with pytest.raises(ServerFailedError, match="stay in the foreground"):
        open_disk(DISK, ANY, connected(command=("true", "{socket}")))


@pytest.mark.parametrize("thread", ["start-commands", "command-stderr"])
def test_no_command_outlives_what_there_was_no_thread_for(
    thread: str, folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_flat(folder, "web01", content)
    monkeypatch.setattr(command, "_starter", command._Starter())
    start = threading.Thread.start

    def refused(self: threading.Thread) -> None:
        if self.name.startswith(thread):
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            open_disk(DISK, ANY, connected(command=nbdkit_of(folder)))
    assert servers() == []
    with open_disk(DISK, ANY, connected(command=nbdkit_of(folder))) as source:
        assert read_all(source) == content
        assert len(servers()) == 1, "nor does it start later"


def test_names_can_not_pass_for_options_or_placeholders(folder: Path, content: bytes) -> None:
    write_flat(folder, "--help", content)
    write_flat(folder, "{socket}", content)
    for name in ("--help", "{socket}"):
        script = f'cd {shlex.quote(str(folder))} && exec nbdkit -f -U "$1" file "file=$2"'
        command = ("sh", "-c", script, "serve", "{socket}", "{path}")
        with open_disk(
            DiskAddress(datastore="ds1", path=f"{name}.vmdk"), ANY, connected(command=command)
        ) as source:
            assert source.size_bytes == len(content)


def test_fails_over_before_reading(folder: Path, content: bytes, tmp_path: Path) -> None:
    write_flat(folder, "web01", content)
    unmounted = tmp_path / "unmounted"
    unmounted.mkdir()
    connections = connected(path=unmounted, command=nbdkit_of(folder))
    with open_disk(DISK, ANY, connections) as source:
        assert source.mode == TransportMode.NETWORK
        assert "direct_storage failed: web01.vmdk in datastore ds1 not found" in source.mode_reason
        assert "\n" not in source.mode_reason
        assert read_all(source) == content


def test_a_chosen_mode_fails_over_only_where_that_is_allowed(folder: Path, content: bytes, tmp_path: Path) -> None:
    write_flat(folder, "web01", content)
    connections = connected(path=tmp_path / "gone", command=nbdkit_of(folder))
    direct = TransportMode.DIRECT_STORAGE
    with open_disk(DISK, TransportPreference(mode=direct), connections) as source:
        assert source.mode == TransportMode.NETWORK
    with pytest.raises(Exception, match="not found"):
        open_disk(DISK, TransportPreference(mode=direct, failover_to_network=False), connections)
    proxy_forbids_it = connections.model_copy(update={"failover_to_network": False})
    with pytest.raises(Exception, match="not found"):
        open_disk(DISK, ANY, proxy_forbids_it)


def test_fails_over_in_the_middle_of_a_read(folder: Path, content: bytes, tmp_path: Path) -> None:
    write_flat(folder, "web01", content)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    write_flat(mirror, "web01", content)
    with open_disk(DISK, ANY, connected(path=folder, command=nbdkit_of(mirror))) as source:
        assert isinstance(source, FailoverSource)
        assert isinstance(source, DiskSource)
        found = bytearray(len(content))
        view = memoryview(found)
        source.read_into(0, view[: 2 * MIB])
        assert source.mode == TransportMode.DIRECT_STORAGE
        os.truncate(folder / "web01-flat.vmdk", 3 * MIB)
        for at in range(2 * MIB, len(content), MIB):
            source.read_into(at, view[at : at + MIB])
        assert found == content
        assert source.mode == TransportMode.NETWORK
        assert f"; network from {2 * MIB + MIB} on, because direct_storage failed: " in source.mode_reason
        assert "shrank while it was read" in source.mode_reason


def test_fails_over_while_listing_what_is_allocated(folder: Path, raw_image: Path, content: bytes) -> None:
    image = folder / "disk.img"
    subprocess.run(["cp", "--sparse=always", str(raw_image), str(image)], check=True)
    command = ("nbdkit", "-f", "-U", "{socket}", "file", str(raw_image))
    with open_disk(
        DiskAddress(datastore="ds1", path="disk.img"), ANY, connected(path=folder, command=command)
    ) as source:
        listing = source.allocated(0, source.size_bytes)
        first = next(listing)
        os.truncate(image, MIB)
        found = bytearray(len(content))
        for extent in [first, *listing]:
            end = extent.offset + extent.length
            source.read_into(extent.offset, memoryview(found)[extent.offset : end])
        assert found == content
        assert source.mode == TransportMode.NETWORK


def test_when_network_mode_fails_too_the_error_names_both(folder: Path, content: bytes) -> None:
    write_flat(folder, "web01", content)
    with open_disk(DISK, ANY, connected(path=folder, uri="nbd+unix:///?socket=/nowhere/nbd.sock")) as source:
        os.truncate(folder / "web01-flat.vmdk", MIB)
        for _ in range(2):
            with pytest.raises(FailoverFailedError, match="neither by direct_storage nor by network") as failure:
                source.read_into(0, memoryview(bytearray(2 * MIB)))
            assert "shrank" in str(failure.value)
            assert "can't connect" in str(failure.value)
    with pytest.raises(FailoverFailedError, match=r"truncated.*can't connect"):
        open_disk(DISK, ANY, connected(path=folder, uri="nbd+unix:///?socket=/nowhere/nbd.sock"))


def test_a_disk_of_another_size_is_no_replacement(folder: Path, content: bytes) -> None:
    write_flat(folder, "web01", content)
    with open_disk(DISK, ANY, connected(path=folder, command=nbdkit_of(folder))) as source:
        os.truncate(folder / "web01-flat.vmdk", MIB)
        with pytest.raises(FailoverFailedError, match=r"it has 1048576 bytes|the disk has|truncated"):
            source.read_into(0, memoryview(bytearray(2 * MIB)))


def test_a_link_out_of_the_datastore_is_not_read_by_another_mode(folder: Path, content: bytes) -> None:
    write_flat(folder, "web01", content)
    (folder / "web01-flat.vmdk").unlink()
    (folder / "web01-flat.vmdk").symlink_to("/etc/shadow")
    with pytest.raises(LinkOutsideError):
        open_disk(DISK, ANY, connected(path=folder, command=nbdkit_of(folder)))


def test_a_server_that_is_killed_in_mid_read_is_replaced(nbdkit: Start, raw_image: Path, content: bytes) -> None:
    """The same for a first mode that is served by a process: four servers, one after the other, would do."""
    first, second = (nbdkit("file", str(raw_image)) for _ in range(2))
    source = FailoverSource(
        NbdSource(parse_uri(first.uri), reason="first"), lambda: NbdSource(parse_uri(second.uri), reason="second")
    )
    with source:
        found = bytearray(len(content))
        view = memoryview(found)
        for at in range(0, len(content), MIB):
            if at == 5 * MIB:
                first.kill()
            source.read_into(at, view[at : at + MIB])
        assert found == content
        assert source.mode_reason.startswith(f"first; network from {5 * MIB} on, because network failed: lost nbd")
        second.kill()
        with pytest.raises(FailoverFailedError) as failure:
            source.read_into(0, view)
        assert isinstance(failure.value.__cause__, ConnectionLostError)


def test_errors_of_a_read_have_their_place(nbdkit: Start) -> None:
    assert issubclass(DiskShrunkError, DiskUnreadableError)
    server = nbdkit("--filter=error", "memory", "4M", "error-pread=EIO", "error-pread-rate=1")
    with NbdSource(parse_uri(server.uri), reason="x") as source, pytest.raises(DiskUnreadableError) as failure:
        source.read_into(MIB, memoryview(bytearray(MIB)))
    assert failure.value.exit_code == 8
    assert f"at {MIB}" in str(failure.value)
