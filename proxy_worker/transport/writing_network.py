"""A vCenter's disk that is written over the network: VMware's VDDK, run by nbdkit's vddk plug-in."""

from __future__ import annotations

from collections.abc import Callable

from proxy_worker.contract.errors import TargetError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import VsphereDisk
from proxy_worker.program.closing import Closing
from proxy_worker.transport.command import NbdServer, ServerFailedError
from proxy_worker.transport.nbd.sink import NbdSink
from proxy_worker.transport.vddk import named, network_transports, serve_vddk
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.transport.writing import SinkLostError


class ServedSink(Closing):
    """A `DiskSink` that a command serves; closing it ends the command."""

    def __init__(self, server: NbdServer, *, mode: TransportMode, reason: str) -> None:
        """Take over `server`. Raises ServerFailedError."""
        self.mode = mode
        self.mode_reason = reason
        self._server = server
        try:
            self._disk = server.connected(lambda uri: NbdSink(uri, mode=mode, reason=reason))
        except BaseException:
            server.close()
            raise
        self.size_bytes = self._disk.size_bytes

    def write_from(self, offset: int, view: memoryview) -> None:
        """Write all of `view` from `offset` on. Raises TargetError."""
        self._call(lambda: self._disk.write_from(offset, view))

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with what the disk holds now. Raises SourceError, TargetError."""
        self._call(lambda: self._disk.read_into(offset, view))

    def zero(self, offset: int, length: int) -> None:
        """Let a range read as zeros. Raises TargetError."""
        self._call(lambda: self._disk.zero(offset, length))

    def flush(self) -> None:
        """Make durable what was written. Raises TargetError."""
        self._call(self._disk.flush)

    def close(self) -> None:
        """Hang up and end the command. May be called again."""
        self._disk.close()
        self._server.close()

    def _call(self, request: Callable[[], None]) -> None:
        try:
            request()
        except TargetError as error:
            self._server.explain(error)
            raise


def open_vddk_sink(disk: VsphereDisk, vsphere: VsphereAccess, *, reason: str) -> ServedSink:
    """Serve a powered-off VM's disk for writing, and connect to it.

    VDDK locks the disk: while one proxy has it open, another can't open it, nor can the VM be powered on. Raises
    SinkLostError, and what `serve_vddk` and `named` raise.
    """
    server = serve_vddk(disk, vsphere, transports=network_transports(vsphere), read_only=False)
    try:
        return ServedSink(server, mode=TransportMode.NETWORK, reason=f"{reason}; VDDK")
    except ServerFailedError as error:
        explained = named(disk, error)
        if explained is not error:
            raise explained from error
        raise SinkLostError(error.what, why=error.why, remedy=error.remedy) from error
