"""A vCenter as the scheduler logs in there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from proxy_worker.contract.specification import VcenterReference
from proxy_worker.vsphere.session import Endpoint, Patience
from proxy_worker.vsphere.trust import Trust


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
        """As a proxy's specification names it."""
        return VcenterReference(
            name=self.name,
            host=self.host,
            port=self.port,
            user=self.user,
            credential=self.credential,
            thumbprint=self.thumbprint,
        )
