"""How this proxy gets at vCenters: what it can do there, where the passwords are, sessions that are kept open."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy_worker.contract.errors import SourceError
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.contract.subjects import VcenterReference, VsphereFile
from proxy_worker.transport.guest_disks import BY_ID
from proxy_worker.transport.vmx import VMX_LIMIT_BYTES
from proxy_worker.vsphere.trust import Trust, checked_connection, normalised, with_colons

if TYPE_CHECKING:
    from proxy_worker.vsphere.session import Endpoint, Sessions

MOST_SESSIONS: Final = 2
"""To each vCenter, by one process of the proxy."""
_CONNECT_TIMEOUT_S: Final = 30.0
_SHA1_DIGITS: Final = 40


class VcenterCertificateError(SourceError):
    """A vCenter can't be asked for its certificate."""


@dataclass(frozen=True)
class VsphereAccess:
    """One process's way to every vCenter. Thread-safe; nothing is opened before it is needed."""

    secrets_dir: Path
    """Passwords: `<credential>.password`."""
    state_dir: Path
    """For what has to survive this process, e.g. which disks it has hot-added."""
    offer: VsphereOffer = field(default_factory=VsphereOffer)
    """What this proxy found that it can do."""
    vddk_libdir: Path | None = None
    ca_file: Path | None = None
    guest_disks_dir: Path = BY_ID
    """Links to this machine's block devices, by what names end with their disks' uuids."""
    encryption_to_host: bool = False
    """Whether network mode must be encrypted up to the host."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _sessions: dict[VcenterReference, Sessions] = field(default_factory=dict, repr=False)

    def password_file(self, vcenter: VcenterReference) -> Path:
        """The file with the account's password; raises VcenterSecretError unless it can be read and isn't empty."""
        from proxy_worker.vsphere.session import read_password  # noqa: PLC0415 - slow to load, mostly not wanted

        read_password(self.endpoint(vcenter), self.secrets_dir)
        return self.secrets_dir / f"{vcenter.credential}.password"

    def trust(self, vcenter: VcenterReference) -> Trust:
        """How the vCenter proves who it is."""
        return Trust(vcenter.thumbprint, self.ca_file, vcenter.authorities)

    def endpoint(self, vcenter: VcenterReference) -> Endpoint:
        """The vCenter as sessions want it."""
        from proxy_worker.vsphere.session import Endpoint  # noqa: PLC0415 - as above

        return Endpoint(
            name=vcenter.name,
            host=vcenter.host,
            user=vcenter.user,
            credential=vcenter.credential,
            port=vcenter.port,
            trust=self.trust(vcenter),
            max_sessions=MOST_SESSIONS,
        )

    def sessions(self, vcenter: VcenterReference) -> Sessions:
        """The sessions to a vCenter, to `borrow` one from. Raises VcenterSecretError."""
        from proxy_worker.vsphere.session import Sessions, read_password  # noqa: PLC0415 - as above

        with self._lock:
            if vcenter not in self._sessions:
                endpoint = self.endpoint(vcenter)
                self._sessions[vcenter] = Sessions(endpoint, read_password(endpoint, self.secrets_dir))
            return self._sessions[vcenter]

    def sha1_thumbprint(self, vcenter: VcenterReference) -> str:
        """The SHA-1 of the vCenter's certificate, `AB:CD:…`, which is how VDDK wants to know whom to trust.

        A pinned SHA-1 is taken as it is. Otherwise the vCenter is connected to and has to prove who it is, as its
        reference says. Raises the errors of `proxy_worker.vsphere.trust`, and VcenterCertificateError.
        """
        if vcenter.thumbprint is not None and len(normalised(vcenter.thumbprint)) == _SHA1_DIGITS:
            return with_colons(normalised(vcenter.thumbprint))
        trust = self.trust(vcenter)
        connection = checked_connection(vcenter.name, trust)(
            vcenter.host, vcenter.port, timeout=_CONNECT_TIMEOUT_S, context=trust.context()
        )
        try:
            connection.connect()
            certificate = connection.sock.getpeercert(binary_form=True) if _is_tls(connection.sock) else None
        except (OSError, HTTPException) as error:
            raise VcenterCertificateError(
                f"vCenter {vcenter.name} ({vcenter.host}:{vcenter.port})",
                why=f"can't ask for its certificate: {error}",
                remedy="Check its address and the network between.",
            ) from error
        finally:
            connection.close()
        return with_colons(hashlib.sha1(certificate or b"", usedforsecurity=False).hexdigest())

    def close(self) -> None:
        """Log out everywhere. May be called again; what is asked for afterwards is opened anew."""
        with self._lock:
            while self._sessions:
                self._sessions.popitem()[1].close()


def fetch_configuration(file: VsphereFile, vsphere: VsphereAccess) -> bytes:
    """A file of a VM's configuration, at most 1 MiB, from its vCenter.

    Raises VcenterSecretError, and the errors of `proxy_worker.vsphere.download` and of sessions.
    """
    from proxy_worker.vsphere.download import download  # noqa: PLC0415 - slow to load, mostly not wanted

    with vsphere.sessions(file.vcenter).borrow() as session:
        return download(session, file.datacenter, file.path, limit_bytes=VMX_LIMIT_BYTES)


def _is_tls(connected: socket.socket) -> bool:
    return isinstance(connected, ssl.SSLSocket)
