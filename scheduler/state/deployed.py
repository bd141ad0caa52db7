"""What the scheduler knows of proxies that it put on machines itself."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from scheduler.state.columns import Record, choice


class DeploymentState(StrEnum):
    """How far putting a proxy on its machine has come."""

    DEPLOYING = "deploying"
    DEPLOYED = "deployed"
    FAILED = "failed"


class ProxyDeployment(Record):
    """The last deployment of a proxy; it outlives the declaration, so that what is on a machine stays known."""

    __tablename__ = "proxy_deployments"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    state: Mapped[DeploymentState] = mapped_column(choice(DeploymentState))
    step: Mapped[str]
    """The step that it is at, or failed at; empty when it is done."""
    problem: Mapped[str] = mapped_column(default="")
    """Why it failed."""
    release: Mapped[str | None] = mapped_column(default=None)
    """What runs there: version and a digest of what was installed. None: nothing yet."""
    system: Mapped[str] = mapped_column(default="")
    """The machine: `Debian GNU/Linux 12, x86_64, Python 3.11`."""
    host_key: Mapped[str] = mapped_column(default="")
    """The fingerprint that it is pinned by."""
    kept_running_by: Mapped[str] = mapped_column(default="")
    """`systemd` or `supervisor`."""
    account: Mapped[str] = mapped_column(default="")
    """Who it runs as."""
    changed_at: Mapped[float]
    """When this was last written."""
    enable_again: Mapped[bool] = mapped_column(default=False)
    """Whether it was disabled only to be upgraded, and is enabled when that is done."""
