"""What an administrator allows: how much at once, when, on which proxies, how long better ones are waited for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.planning.window import Window


@dataclass(frozen=True, slots=True)
class LatencyLimits:
    """What is done about a datastore that takes long to answer."""

    stop_ms: float = 20.0
    """From here on, no further disk of it is begun."""
    throttle_ms: float = 30.0
    """From here on, disks of it that are being read are slowed down."""


@dataclass(frozen=True, slots=True)
class JobTerms:
    """What holds for the disks of one job."""

    window: Window | None = None
    """When they may begin; None: at any time."""
    proxies: tuple[str, ...] | None = None
    """The only proxies that may have them, by name or pattern; None: whoever can read them."""
    preferred: tuple[str, ...] = ()
    """Proxies that are to have them while they have slots to spare, by name or pattern."""
    targets: tuple[str, ...] | None = None
    """The only proxies that may write its replicas, by name or pattern; None: whoever can."""


NO_TERMS = JobTerms()
DEFAULT_LATENCY = LatencyLimits()


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed at once, and how long something better is waited for."""

    caps: Mapping[str, int] = field(default_factory=dict)
    """By cap name (`repository_cap`, `datastore_cap`); a cap that isn't here has no limit."""
    patience_s: float = 60.0
    """How long a disk waits for a full better transport mode or preferred proxy before it takes another."""
    overdue_s: float = 3600.0
    """A job that has waited for so long and has nothing in flight goes with the jobs of high priority."""
    upkeep_per_proxy: int = 2
    """Tasks without a slot that may be in flight per proxy that can take them: one runs, one is at hand."""
    window: Window | None = None
    """When disks of any job may begin; None: at any time."""
    jobs: Mapping[str, JobTerms] = field(default_factory=dict)
    """By job."""
    latency: LatencyLimits = DEFAULT_LATENCY
    """For datastores that have none of their own."""
    latency_of: Mapping[str, LatencyLimits] = field(default_factory=dict)
    """By datastore."""

    def terms(self, job: str) -> JobTerms:
        """What holds for a job; nothing in particular for one that isn't declared."""
        return self.jobs.get(job, NO_TERMS)

    def closed(self, job: str, moment: float) -> tuple[str, Window] | None:
        """Whose window keeps disks of a job from beginning then; None when none does."""
        for whose, window in (("jobs", self.window), (f"job {job}", self.terms(job).window)):
            if window is not None and not window.is_open(moment):
                return whose, window
        return None

    def latency_limits(self, datastore: str | None) -> LatencyLimits:
        """What holds for a datastore."""
        return self.latency_of.get(datastore or "", self.latency)


def repository_cap(repository: str) -> str:
    """The cap on disks moved to or from a repository at once."""
    return f"repository:{repository}"


def datastore_cap(datastore: str) -> str:
    """The cap on disks of a datastore moved at once."""
    return f"datastore:{datastore}"
