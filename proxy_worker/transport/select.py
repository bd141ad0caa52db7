"""Open a disk by the mode that the contract's table chooses, and go on in network mode where that fails."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from proxy_worker.contract.errors import CancelledError, ProxyfleetError, SourceError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.selection import choose_modes
from proxy_worker.contract.subjects import DiskAddress, TransportPreference
from proxy_worker.transport.connections import Connections
from proxy_worker.transport.datastore import LinkOutsideError
from proxy_worker.transport.direct_storage import open_direct_storage
from proxy_worker.transport.failover import FailoverSource, both_failed
from proxy_worker.transport.network import open_network_mode
from proxy_worker.transport.source import DiskSource
from proxy_worker.transport.storage_snapshot.reading import open_storage_snapshot
from proxy_worker.transport.vsphere_access import VsphereAccess

_NETWORK: Final = TransportMode.NETWORK


class NoTransportError(SourceError):
    """This proxy has no mode by which it can read a disk."""

    retryable = False


class Opener(Protocol):
    """Opens a disk by one mode; `reason` is the beginning of the source's `mode_reason`."""

    def __call__(
        self, address: DiskAddress, connections: Connections, vsphere: VsphereAccess, *, reason: str
    ) -> DiskSource:
        """Raises a ProxyfleetError; all but a few let the disk be opened in network mode instead."""


def _open_virtual_appliance(
    address: DiskAddress, connections: Connections, vsphere: VsphereAccess, *, reason: str
) -> DiskSource:
    from proxy_worker.transport.hot_add import open_virtual_appliance  # noqa: PLC0415 - pyvmomi is slow to load

    return open_virtual_appliance(address, connections, vsphere, reason=reason)


OPENERS: Final[Mapping[TransportMode, Opener]] = {
    TransportMode.STORAGE_SNAPSHOT: open_storage_snapshot,
    TransportMode.DIRECT_STORAGE: open_direct_storage,
    TransportMode.VIRTUAL_APPLIANCE: _open_virtual_appliance,
    TransportMode.NETWORK: open_network_mode,
}
"""How each mode opens a disk."""

_NEVER_FAIL_OVER: Final = (LinkOutsideError, CancelledError)
"""Whoever put a link there must not get at the file by way of another mode either."""
NO_VCENTER: Final = VsphereAccess(secrets_dir=Path("/nonexistent"), state_dir=Path(tempfile.gettempdir()))
"""For disks that no vCenter has."""


def open_disk(
    address: DiskAddress,
    preference: TransportPreference,
    connections: Connections,
    vsphere: VsphereAccess = NO_VCENTER,
    *,
    size_bytes: int | None = None,
) -> DiskSource:
    """Open a disk by the best mode; fails over to network mode, now or in mid-read, where that is allowed.

    `size_bytes` is the disk's size as the inventory knows it, since some modes are not for the largest disks.
    Raises NoTransportError when there is no mode to try, else what opening raised: SourceError, NotFoundError
    (a disk that doesn't exist), ConfigurationError (a template that makes no URI), CredentialError (a vCenter
    that refuses this proxy), ConflictError (a disk that is in use).
    """
    if not connections.failover_to_network:
        preference = preference.model_copy(update={"failover_to_network": False})
    choice = choose_modes(address, connections.offer(vsphere.offer), preference, size_bytes)
    if not choice.candidates:
        raise NoTransportError(
            f"{_shown(address)} can't be read on this proxy",
            why=choice.refusals,
            remedy="Connect a proxy to its datastore, or choose another transport mode.",
        )

    def open_by(mode: TransportMode, note: str = "") -> DiskSource:
        opener = OPENERS.get(mode)
        if opener is None:
            raise NoTransportError(
                f"{_shown(address)} can't be read by {mode}", why="this version doesn't offer it"
            )
        return opener(address, connections, vsphere, reason=choice.reason(mode, preference) + note)

    first, *others = choice.candidates
    if _NETWORK not in others:
        return open_by(first)
    try:
        source = open_by(first)
    except _NEVER_FAIL_OVER:
        raise
    except ProxyfleetError as error:
        try:
            return open_by(_NETWORK, f"; {first} failed: {error}")
        except ProxyfleetError as second:
            raise both_failed(first, error, _NETWORK, second, 0) from second
    return FailoverSource(source, lambda: open_by(_NETWORK))


def _shown(address: DiskAddress) -> str:
    if address.vsphere is not None:
        return f"{address.vsphere.path} of vCenter {address.vsphere.vcenter.name}"
    return address.nbd_uri or f"{address.path} in datastore {address.datastore}"
