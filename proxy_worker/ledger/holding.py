"""The proxy's side of the ledger: register, claim, renew, report."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Sequence
from typing import Any

from proxy_worker.contract.figures import DiskProgress
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.contract.outcome import TaskFailure, TaskResult
from proxy_worker.ledger.connection import Connection
from proxy_worker.ledger.errors import ProxyNameTakenError
from proxy_worker.ledger.reading import TASK_RESULT, proxy_orders
from proxy_worker.ledger.records import Claim, Fence, Forfeited, ProxyIdentity, ProxyOrders, Refused, RenewAnswer
from proxy_worker.ledger.timings import Timings


class ProxySide(Connection):
    """What a proxy does. All calls may be repeated; all raise `LedgerError`s when Redis can't be used."""

    def register(self, registration: ProxyRegistration, identity: ProxyIdentity) -> tuple[str, ...]:
        """Begin a life. Returns tasks that are ready again now: a former life had them, or only it could take them.

        Raises `ProxyNameTakenError` while another process with this name is alive: a namesake, a clone, or a
        former life that the host lock doesn't prove to be over.
        """
        answer = self._run(
            "register",
            identity.name,
            identity.instance_id,
            identity.life,
            identity.lock,
            registration.model_dump_json(),
        )
        if answer[0] == "ok":
            return tuple(answer[1])
        _, site, instance, age = answer
        whose = "a copy of this proxy" if instance == identity.instance_id else "another proxy"
        error = ProxyNameTakenError(
            f"proxy name {identity.name!r}",
            why=f"{whose} has registered it, at site {site!r}, and was alive {float(age):.0f} s ago",
            remedy="Give each proxy a name and a state_dir of its own, or stop the other one.",
        )
        error.heard_ago_s = float(age)
        raise error

    def heartbeat(self, identity: ProxyIdentity, *, draining: bool = False, note: str = "") -> ProxyOrders | None:
        """Say that this life goes on. Returns the scheduler's orders; None when the registration was lost.

        While `draining` it gets nothing new; `note` says why, where there is more to say.

        Raises `ProxyNameTakenError` when another life has taken the name.
        """
        answer = self._run("heartbeat", identity.name, identity.life, int(draining), note)
        if answer[0] == "taken":
            raise ProxyNameTakenError(
                f"proxy name {identity.name!r}",
                why="another process registered it while this one could not be heard",
                remedy="Give each proxy a name and a state_dir of its own.",
            )
        return proxy_orders(*answer[1:]) if answer[0] == "ok" else None

    def timings(self) -> Timings:
        """The timings in force; the default ones before a scheduler has opened an epoch."""
        text = self._run("timings")
        return Timings.model_validate_json(text) if text else Timings()

    def heard_ago_s(self, proxy: str) -> float | None:
        """How long ago the ledger last heard of a proxy; None when it isn't registered, or has left."""
        age = self._run("heard", proxy)
        return float(age) if age else None

    def depart(self, identity: ProxyIdentity) -> None:
        """End a life in order."""
        self._run("depart", identity.name, identity.life)

    def claim(
        self,
        task_id: str,
        number: int,
        *,
        kind: TaskKind,
        lane: str,
        identity: ProxyIdentity,
        token: str | None = None,
    ) -> Claim | Refused:
        """Ask for the task that a message from `lane` named. `token` is given to repeat a call."""
        token = token or secrets.token_hex(16)
        answer = self._run("claim", task_id, number, kind, lane, identity.name, identity.life, token)
        if answer[0] != "ok":
            return Refused(answer[1], requeued=bool(answer[2]))
        _, epoch, counter, title, signed, checkpoint, now, lease = answer
        return Claim(
            fence=Fence(task_id, int(epoch), int(counter), token),
            title=title,
            signed=base64.b64decode(signed),
            checkpoint=checkpoint,
            server_time=float(now),
            lease_s=float(lease),
        )

    def renew(
        self, fence: Fence, checkpoint: str | None = None, progress: DiskProgress | None = None
    ) -> RenewAnswer:
        """Keep a task for another lease; tells what is new: a checkpoint, how far it is."""
        return RenewAnswer(
            self._fenced("renew", fence, checkpoint or "", progress.model_dump_json() if progress else "")
        )

    def complete(self, fence: Fence, result: TaskResult) -> bool:
        """Report success; False when the task is no longer this holder's. Repeat it until answered."""
        return bool(self._fenced("complete", fence, "done", TASK_RESULT.dump_json(result).decode()) == "ok")

    def fail(self, fence: Fence, failure: TaskFailure) -> bool:
        """Report failure, or the end of a cancelled task; False when the task is no longer this holder's."""
        return bool(self._fenced("complete", fence, "failed", failure.model_dump_json()) == "ok")

    def release(self, fence: Fence, checkpoint: str | None = None, note: str = "") -> bool:
        """Hand a task back, ready for anybody; False when it is no longer this holder's."""
        return bool(self._fenced("release", fence, checkpoint or "", note) == "ok")

    def forfeit(
        self, task_id: str, number: int, identity: ProxyIdentity, *, why: str = "died", log: Sequence[str] = ()
    ) -> Forfeited | None:
        """Say that the process of this proxy that had taken a message is dead; None when nothing had to change.

        `why` goes on after "its process", and `log` is what it last wrote: the outcome of a task over which
        processes die again and again.
        """
        answer = self._run("forfeit", task_id, number, identity.name, identity.life, why, json.dumps(list(log)))
        return None if answer == "lost" else Forfeited(answer)

    def _fenced(self, script: str, fence: Fence, *arguments: str) -> Any:
        return self._run(script, fence.task_id, fence.epoch, fence.counter, fence.token, *arguments)
