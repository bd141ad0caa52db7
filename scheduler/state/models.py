"""All tables in one place: what migrations compare with and what other packages import."""

from __future__ import annotations

from scheduler.state.columns import Record
from scheduler.state.declared import (
    Datastore,
    DatastoreKind,
    Job,
    JobKind,
    NbdDisk,
    Priority,
    Proxy,
    Repository,
    Site,
    Vcenter,
    Vm,
)
from scheduler.state.deployed import DeploymentState, ProxyDeployment
from scheduler.state.dispatching import DispatchSettings
from scheduler.state.notifying import Delivery, DeliveryState, Notification
from scheduler.state.recorded import (
    DiskTask,
    DiskTaskState,
    LedgerTask,
    Point,
    Request,
    RequestKind,
    Restore,
    Run,
    RunState,
    RunTrigger,
    ServiceMark,
    VmRun,
    VmRunState,
    WorkState,
)
from scheduler.state.replicating import (
    Replica,
    ReplicaOperation,
    ReplicaOperationKind,
    ReplicaPoint,
    ReplicaState,
)
from scheduler.state.restoring import RestoredDisk, RestoreWishes, VmRestore, VmRestoreKind, VmRestoreState
from scheduler.state.scanned import VcenterScan, VcenterVm
from scheduler.state.serving import SchedulerProcess
from scheduler.state.steps import ChangeBaseOfPoint, SnapshotEntry, SnapshotState, StepState, VcenterStep
from scheduler.state.traffic import DeclaredTrafficRule

__all__ = [
    "ChangeBaseOfPoint",
    "Datastore",
    "DatastoreKind",
    "DeclaredTrafficRule",
    "Delivery",
    "DeliveryState",
    "DeploymentState",
    "DiskTask",
    "DiskTaskState",
    "DispatchSettings",
    "Job",
    "JobKind",
    "LedgerTask",
    "NbdDisk",
    "Notification",
    "Point",
    "Priority",
    "Proxy",
    "ProxyDeployment",
    "Record",
    "Replica",
    "ReplicaOperation",
    "ReplicaOperationKind",
    "ReplicaPoint",
    "ReplicaState",
    "Repository",
    "Request",
    "RequestKind",
    "Restore",
    "RestoreWishes",
    "RestoredDisk",
    "Run",
    "RunState",
    "RunTrigger",
    "SchedulerProcess",
    "ServiceMark",
    "Site",
    "SnapshotEntry",
    "SnapshotState",
    "StepState",
    "Vcenter",
    "VcenterScan",
    "VcenterStep",
    "VcenterVm",
    "Vm",
    "VmRestore",
    "VmRestoreKind",
    "VmRestoreState",
    "VmRun",
    "VmRunState",
    "WorkState",
]
