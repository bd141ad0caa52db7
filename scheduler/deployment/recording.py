"""What becomes of a deployment, in the database, so that a later command knows it."""

from __future__ import annotations

import time
from typing import Any

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.deployment.progress import Step, StepState
from scheduler.state.models import DeploymentState, ProxyDeployment
from scheduler.state.store import State


def remembered(state: State, name: str) -> ProxyDeployment | None:
    """What is known of a proxy's last deployment."""
    with state.read() as session:
        return session.get(ProxyDeployment, name)


def record(state: State, name: str, /, **columns: Any) -> None:
    """Write these columns of a proxy's deployment."""
    with state.write() as session:
        row = session.get(ProxyDeployment, name)
        if row is None:
            row = ProxyDeployment(name=name, state=DeploymentState.DEPLOYING, step="", changed_at=time.time())
            session.add(row)
        for column, value in {**columns, "changed_at": time.time()}.items():
            setattr(row, column, value)


def record_step(state: State, step: Step) -> None:
    """Write which step a deployment is at."""
    if step.state is StepState.RUNNING:
        record(state, step.proxy, state=DeploymentState.DEPLOYING, step=step.title, problem="")


def record_failure(state: State, name: str, error: ProxyfleetError) -> None:
    """Write that the step a deployment is at failed, and why."""
    record(state, name, state=DeploymentState.FAILED, problem=str(error))


def forget(state: State, name: str) -> None:
    """Nothing of it is on any machine any more."""
    with state.write() as session:
        row = session.get(ProxyDeployment, name)
        if row is not None:
            session.delete(row)
