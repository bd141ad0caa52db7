"""Disks on an NFS export that isn't mounted: a real nfs-ganesha, a real qemu-nbd."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import DiskAddress, TransportPreference
from proxy_worker.transport.command import ServerFailedError
from proxy_worker.transport.connections import Connections, DatastoreConnection
from proxy_worker.transport.datastore import DiskNotFoundError, OutsideDatastoreError
from proxy_worker.transport.select import open_disk
from tests.simulators.nfs import NfsServer, serving

from .conftest import MIB, read_all, tool, write_flat

DISK = DiskAddress(datastore="ds1", path="web 01/web.vmdk")
DIRECT, NETWORK = TransportMode.DIRECT_STORAGE, TransportMode.NETWORK
ONLY_DIRECT = TransportPreference(mode=DIRECT, failover_to_network=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsServer]:
    export = tmp_path_factory.mktemp("export")
    with serving(export, tmp_path_factory.mktemp("ganesha")) as running:
        yield running


@pytest.fixture
def nfs(server: NfsServer, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NfsServer:
    """The export with a disk on it, and a qemu-nbd in the server's network."""
    folder = server.export / "web 01"
    folder.mkdir(exist_ok=True)
    write_flat(folder, "web", content)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    server.put_on_path(bin_folder, "qemu-nbd", tool("qemu-nbd"))
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    return server


def connected(uri: str, command: tuple[str, ...] | None = None) -> Connections:
    return Connections(datastores={"ds1": DatastoreConnection(nfs_uri=uri, network_command=command)})


def test_a_disk_is_read_without_mounting_the_export(nfs: NfsServer, content: bytes) -> None:
    with open_disk(DISK, TransportPreference(), connected(nfs.uri)) as source:
        assert (source.mode, source.size_bytes) == (DIRECT, len(content))
        assert source.mode_reason.endswith("; NFS through qemu-nbd")
        assert read_all(source) == content
    assert [child for child in psutil.Process().children(recursive=True) if child.name() == "qemu-nbd"] == []


def test_what_is_not_there_is_named(nfs: NfsServer) -> None:
    gone = DiskAddress(datastore="ds1", path="web 01/gone.vmdk")
    with pytest.raises(DiskNotFoundError, match=r"gone-flat.vmdk of nfs://127.0.0.1.* not found"):
        open_disk(gone, ONLY_DIRECT, connected(nfs.uri))
    with pytest.raises(ServerFailedError, match="Let the export's settings admit this machine"):
        open_disk(DISK, ONLY_DIRECT, connected("nfs://127.0.0.1/no/such/export"))
    with pytest.raises(OutsideDatastoreError):
        open_disk(DiskAddress(datastore="ds1", path="../x.vmdk"), ONLY_DIRECT, connected(nfs.uri))


def test_an_export_that_is_refused_is_a_failover(nfs: NfsServer, content: bytes, tmp_path: Path) -> None:
    shutil.copytree(nfs.export / "web 01", tmp_path / "mirror/web 01")
    command = ("nbdkit", "--foreground", "--unix", "{socket}", "file", f"{tmp_path}/mirror/{{path}}")
    nowhere = connected("nfs://127.0.0.1/another", command)
    with open_disk(DISK, TransportPreference(), nowhere) as source:
        assert source.mode is NETWORK
        assert "direct_storage failed: can't serve web 01/web-flat.vmdk" in source.mode_reason
        assert read_all(source) == content


def test_a_qemu_nbd_that_dies_in_mid_read_is_a_failover(nfs: NfsServer, content: bytes, tmp_path: Path) -> None:
    shutil.copytree(nfs.export / "web 01", tmp_path / "mirror/web 01")
    command = ("nbdkit", "--foreground", "--unix", "{socket}", "file", f"{tmp_path}/mirror/{{path}}")
    with open_disk(DISK, TransportPreference(), connected(nfs.uri, command)) as source:
        found = bytearray(source.size_bytes)
        for at in range(0, source.size_bytes, MIB):
            if at == 5 * MIB:
                (reader,) = [one for one in psutil.Process().children() if one.name() == "qemu-nbd"]
                reader.kill()
            source.read_into(at, memoryview(found)[at : at + MIB])
        assert found == content
        assert source.mode is NETWORK
        assert f"network from {5 * MIB} on, because direct_storage failed: " in source.mode_reason


@pytest.mark.parametrize(
    "uri",
    [
        "nfs://server/export?version=4",
        "nfs://user@server/export",
        "http://server/export",
        "nfs:///export",
        "nfs://a:2049/b",
    ],
)
def test_an_nfs_uri_is_a_server_and_an_export(uri: str) -> None:
    with pytest.raises(ValidationError):
        DatastoreConnection(nfs_uri=uri)


def test_a_datastore_is_reached_in_one_way() -> None:
    with pytest.raises(ValidationError, match="one of path, nfs_uri and san"):
        DatastoreConnection(path=Path("/ds1"), san=True)
