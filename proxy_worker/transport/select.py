"""Which mode a disk is read by: a table decides, `open_disk` applies it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ConfigurationError, NotFoundError, SourceError
from proxy_worker.contract.names import AUTOMATIC, MODE_PREFERENCE, TransportMode
from proxy_worker.contract.specification import DiskAddress, TransportPreference
from proxy_worker.transport.connections import OFFERED_MODES, Connections, DatastoreConnection
from proxy_worker.transport.datastore import Datastore, LinkOutsideError
from proxy_worker.transport.direct import DirectSource
from proxy_worker.transport.failover import FailoverSource, both_failed
from proxy_worker.transport.image import open_image
from proxy_worker.transport.nbd.uri import is_nbd_uri
from proxy_worker.transport.network import open_network, open_offered
from proxy_worker.transport.qemu import open_qemu
from proxy_worker.transport.source import DiskSource

_DIRECT, _NETWORK = TransportMode.DIRECT_STORAGE, TransportMode.NETWORK


class NoTransportError(SourceError):
    """This proxy has no mode by which it can read a disk."""

    retryable = False


@dataclass(frozen=True)
class ModeVerdict:
    """Whether a disk may be read by a mode."""

    mode: TransportMode
    refusal: str | None
    """Why not; None when it may."""


@dataclass(frozen=True)
class ModeChoice:
    """The modes to try, in order, and what was said of each mode, best first."""

    candidates: tuple[TransportMode, ...]
    verdicts: tuple[ModeVerdict, ...]

    def reason(self, taken: TransportMode, preference: TransportPreference) -> str:
        """Why `taken`, and why no better mode, in one line."""
        better = self.verdicts[: MODE_PREFERENCE.index(taken)]
        refused = "; ".join(f"no {verdict.mode}: {verdict.refusal}" for verdict in better if verdict.refusal)
        chosen = "automatic choice" if preference.mode == AUTOMATIC else f"{preference.mode} was asked for"
        return f"{taken}, {chosen}" + (f" ({refused})" if refused else "")


@dataclass(frozen=True)
class _Case:
    """One mode for one disk on one proxy."""

    mode: TransportMode
    address: DiskAddress
    connection: DatastoreConnection | None
    allowed: tuple[TransportMode, ...]
    preference: TransportPreference


_REFUSALS: Final[tuple[tuple[Callable[[_Case], bool], str], ...]] = (
    (
        lambda case: (
            case.preference.mode not in {AUTOMATIC, case.mode}
            and not (case.mode == _NETWORK and case.preference.failover_to_network)
        ),
        "{case.preference.mode} was asked for",
    ),
    (lambda case: case.mode not in OFFERED_MODES, "this version doesn't offer it"),
    (lambda case: case.mode not in case.allowed, "this proxy's transport_modes leave it out"),
    (
        lambda case: case.address.nbd_uri is not None and case.mode != _NETWORK,
        "an NBD server offers the disk, no datastore has it",
    ),
    (
        lambda case: case.address.nbd_uri is None and case.connection is None,
        "this proxy isn't connected to datastore {case.address.datastore}",
    ),
    (
        lambda case: (
            case.address.nbd_uri is None and case.connection is not None and case.mode not in case.connection.modes
        ),
        "datastore {case.address.datastore} has no {missing} on this proxy",
    ),
)
"""In this order, when a mode is refused, and in which words."""

_MISSING: Final = {_DIRECT: "path", _NETWORK: "network_uri or network_command"}


def choose_modes(address: DiskAddress, preference: TransportPreference, connections: Connections) -> ModeChoice:
    """The modes to try for a disk, in order, and why not the others. Pure: nothing is opened."""
    connection = connections.datastores.get(address.datastore or "")
    verdicts = []
    for mode in MODE_PREFERENCE:
        case = _Case(mode, address, connection, connections.modes, preference)
        words = next((words for applies, words in _REFUSALS if applies(case)), None)
        refusal = words.format(case=case, missing=_MISSING.get(mode, "")) if words else None
        verdicts.append(ModeVerdict(mode, refusal))
    candidates = tuple(verdict.mode for verdict in verdicts if verdict.refusal is None)
    if not preference.failover_to_network:
        candidates = candidates[:1]
    return ModeChoice(candidates, tuple(verdicts))


def open_disk(address: DiskAddress, preference: TransportPreference, connections: Connections) -> DiskSource:
    """Open a disk by the best mode; fails over to network mode, now or in mid-read, where that is allowed.

    Raises NoTransportError when there is no mode to try, else what opening raised: SourceError, NotFoundError
    (a disk that doesn't exist) or ConfigurationError (a template that makes no URI).
    """
    choice = choose_modes(address, preference, connections)
    if not choice.candidates:
        raise NoTransportError(
            f"{_shown(address)} can't be read on this proxy",
            why="; ".join(f"{verdict.mode}: {verdict.refusal}" for verdict in choice.verdicts),
            remedy="Connect a proxy to its datastore, or choose another transport mode.",
        )

    def open_by(mode: TransportMode, note: str = "") -> DiskSource:
        return _open_by(mode, address, connections, choice.reason(mode, preference) + note)

    first, *others = choice.candidates
    if _NETWORK not in others:
        return open_by(first)
    try:
        source = open_by(first)
    except LinkOutsideError:
        raise  # whoever put the link there must not get at the file by way of another mode either
    except (SourceError, NotFoundError) as error:
        try:
            return open_by(_NETWORK, f"; {first} failed: {error}")
        except (SourceError, NotFoundError, ConfigurationError) as second:
            raise both_failed(first, error, _NETWORK, second, 0) from second
    return FailoverSource(source, lambda: open_by(_NETWORK))


def open_path(text: str) -> DiskSource:
    """Open a disk that a person names: a path, or an NBD URI.

    A file that isn't called .vmdk is a raw image. A VMDK may consist of files in its own folder and below.
    Raises SourceError, NotFoundError, NbdUriError.
    """
    if is_nbd_uri(text):
        return open_offered(text, reason="network, because an NBD URI was given")
    path = Path(text).expanduser().absolute()
    path = path.resolve() if path.is_symlink() else path
    return _open_direct(
        Datastore(path.parent.name, path.parent, label=str(path.parent)),
        path.name,
        "direct_storage, because a path was given",
    )


def _open_by(mode: TransportMode, address: DiskAddress, connections: Connections, reason: str) -> DiskSource:
    if address.nbd_uri is not None:
        return open_offered(address.nbd_uri, reason=reason)
    connection = connections.datastores[address.datastore or ""]
    if mode == _NETWORK:
        return open_network(address, connection, reason=reason)
    if connection.path is None:
        raise NoTransportError(f"datastore {address.datastore} has no path")
    return _open_direct(Datastore(address.datastore or "", connection.path), address.path or "", reason)


def _open_direct(datastore: Datastore, path: str, reason: str) -> DiskSource:
    image = open_image(datastore, path)
    reason = f"{reason}; {image.description} disk"
    if image.is_flat:
        return DirectSource(image, reason=reason)
    return open_qemu(image, reason=f"{reason} through qemu-nbd")


def _shown(address: DiskAddress) -> str:
    return address.nbd_uri or f"{address.path} in datastore {address.datastore}"
