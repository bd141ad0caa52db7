"""Shares of traffic rules' limits: what each task's process may send, so that all of them keep to the limits.

A share is leased for as long as its holder's task is: a mover that can't prove its lease stops sending a third of a
lease before the ledger gives the task, and with it the share, to anybody else. So a holder that doesn't reach Redis
keeps its last share, and never has more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxy_worker.contract.names import TrafficKind
from proxy_worker.ledger.connection import Connection
from proxy_worker.ledger.records import Fence


@dataclass(frozen=True, slots=True)
class Flow:
    """What goes between one proxy and one repository, or another proxy: the unit that rules hold for."""

    kind: TrafficKind
    repository: str
    """Of replication: the target's proxy."""
    proxy: str

    def __str__(self) -> str:
        """As the ledger's keys have it; names have no colons."""
        return f"flow:{self.kind}:{self.repository}:{self.proxy}"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Which limits are in force, and what for."""

    limits: Mapping[str, int]
    """Bytes per second, by rule."""
    flows: Mapping[Flow, Sequence[str]]
    """The rules that hold for it; flows that none holds for are left out."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a task may send."""

    bytes_per_s: float | None
    """None: no rule holds for it."""
    lost: bool = False
    """The task is no longer its holder's, and neither is any share."""


def traffic_arguments(traffic: Traffic, before: Traffic | None) -> tuple[int, str, str, str]:
    """As `set_traffic.lua` takes it: what differs from `before`, or all of it."""
    past = before or Traffic({}, {})
    gone = [str(flow) for flow in past.flows.keys() - traffic.flows.keys()]
    gone.extend(f"limit:{rule}" for rule in past.limits.keys() - traffic.limits.keys())
    limits = {rule: rate for rule, rate in traffic.limits.items() if past.limits.get(rule) != rate}
    flows = {str(flow): list(rules) for flow, rules in traffic.flows.items() if past.flows.get(flow) != rules}
    return int(before is None), json.dumps(gone), json.dumps(limits), json.dumps(flows)


class ShareSide(Connection):
    """What holders of tasks ask about traffic."""

    def share(
        self, fence: Fence, flow: Flow, job: str, *, serial: int, allowed: float, wanted: float | None
    ) -> Share:
        """Ask what may be sent. `allowed` is the rate that the holder keeps to until it hears the answer, `wanted`
        what it could use, None if more than it has; both in bytes per second. `serial` rises with each call.

        After an answer below `allowed` ask again soon, with it as `allowed`: others wait for that.
        """
        answer = self._run(
            "share",
            *(fence.task_id, fence.epoch, fence.counter, fence.token),
            *(str(flow), job, serial, allowed, -1 if wanted is None else wanted),
        )
        if answer[0] == "rate":
            return Share(float(answer[1]))
        return Share(0.0, lost=True) if answer[0] == "lost" else Share(None)
