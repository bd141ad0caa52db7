"""A vCenter as the scheduler logs in there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy_worker.contract.subjects import VcenterReference
from proxy_worker.vsphere.session import Endpoint, Patience
from proxy_worker.vsphere.trust import Trust

CARRIED_AUTHORITIES_CHARACTERS: Final = 16 << 10
"""What `ca_file` may hold to travel in every specification: a few authorities, not a system's hundreds."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where a vCenter or ESXi host is, and who logs in; its password is the file `<credential>.password`."""

    name: str
    host: str
    user: str
    credential: str
    port: int = 443
    thumbprint: str | None = None
    ca_file: Path | None = None
    max_sessions: int = 4
    """Steps that go on there at once: each has a session to itself."""

    def endpoint(self, patience: Patience) -> Endpoint:
        """As a session wants it."""
        return Endpoint(
            name=self.name,
            host=self.host,
            port=self.port,
            user=self.user,
            credential=self.credential,
            trust=Trust(self.thumbprint, self.ca_file),
            max_sessions=self.max_sessions,
            patience=patience,
        )

    @property
    def reference(self) -> VcenterReference:
        """As a proxy's specification names it, with the authorities that verify it if they are few.

        A file that can't be read is what the scheduler's own session complains of.
        """
        return VcenterReference(
            name=self.name,
            host=self.host,
            port=self.port,
            user=self.user,
            credential=self.credential,
            thumbprint=self.thumbprint,
            authorities=self._authorities(),
        )

    def _authorities(self) -> str | None:
        try:
            pem = self.ca_file.read_text() if self.ca_file is not None else None
        except (OSError, UnicodeDecodeError):
            return None
        return pem if pem is not None and len(pem) <= CARRIED_AUTHORITIES_CHARACTERS else None
