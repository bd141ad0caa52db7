"""How VMs run from their restore points: settings of a proxy, and of the scheduler's own."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated

from pydantic import Field, IPvAnyAddress, IPvAnyNetwork

from proxy_worker.program.settings import Settings


class InstantRestoreSettings(Settings):
    """An NFS server that the proxy starts, for ESXi hosts to mount what VMs run from."""

    host: Annotated[str, Field(min_length=1, max_length=255)]
    """The name or address at which hosts reach this machine."""
    clients: Annotated[tuple[IPvAnyNetwork, ...], Field(min_length=1)]
    """The networks that hosts' NFS traffic comes from, e.g. `10.1.2.0/24`; others are sent away."""
    listen: IPvAnyAddress = IPv4Address("0.0.0.0")  # noqa: S104 - clients are elsewhere, and limited
    """The address that is listened at."""
    port: Annotated[int, Field(ge=1, le=65535)] = 2049
    """Where it listens."""
    portmapper: bool = True
    """Whether ESXi finds it by this machine's portmapper, at port 111: rpcbind's, or its own where none runs."""
    folder: Path = Path("served")
    """Keeps what VMs write until their disks are in production: it needs room for that. Relative to `state_dir`."""

    @property
    def reached_at(self) -> str:
        """The address at which this machine itself reaches the server."""
        return "127.0.0.1" if self.listen.is_unspecified else str(self.listen)
