"""What is known of vCenters, of a check, and of a scan at one moment; and how a scan is watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.text import Text
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import CancelledError, ProxyfleetError
from scheduler.cli.printing import iso, state
from scheduler.cli.watching import Told, Watch
from scheduler.fleet.stored import stored_vcenter
from scheduler.reports.shown import Moment, Shown
from scheduler.state.models import Vcenter, VcenterScan, VcenterVm, WorkState


class MissingPrivilege(Shown):
    """What the account's role lacks."""

    privilege: str
    """Its id, e.g. `VirtualMachine.State.CreateSnapshot`."""
    name: str
    """As the vSphere Client shows it."""
    purpose: str


class VcenterCheck(Shown):
    """What a check found; also what `--json` prints."""

    vcenter: str
    host: str
    port: int
    user: str
    trusted_by: str
    """`thumbprint` or `authority`."""
    product: str
    tagged_objects: int
    missing: tuple[MissingPrivilege, ...]
    exit_code: int


class ScanRecord(Shown):
    """A scan that was asked for; also what `--json` prints."""

    scan: str
    vcenter: str
    state: str
    outcome: str
    """In one line: what was found, or why it failed."""
    exit_code: int
    created: Moment
    ended: Moment | None

    @property
    def final(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in {word.value for word in WorkState if word.final}


def scan_record(scan: VcenterScan) -> ScanRecord:
    """What the database says of a scan."""
    code = 0
    if scan.state is WorkState.CANCELLED:
        code = CancelledError.exit_code
    elif scan.state is WorkState.FAILED:
        code = scan.failure.exit_code if scan.failure is not None else ProxyfleetError.exit_code
    failed = scan.failure is not None and scan.state is not WorkState.SUCCEEDED
    return ScanRecord(
        scan=scan.id,
        vcenter=scan.vcenter,
        state=scan.state.value,
        outcome=str(scan.failure) if failed else scan.summary or "",
        exit_code=code,
        created=scan.created_at,
        ended=scan.ended_at,
    )


def scan_line(record: ScanRecord) -> Text:
    """One line that says how a scan stands."""
    said = f": {record.outcome}" if record.outcome else ""
    return Text.assemble(f"scan of {record.vcenter}: ", state(record.state), said)


def watch_of_scan(look: Callable[[], ScanRecord]) -> Watch[ScanRecord]:
    """How a scan is watched."""
    told = Told()

    def news(record: ScanRecord) -> list[str]:
        return [scan_line(record).plain] if not record.final and told.is_news(record.scan, record.state) else []

    return Watch(
        look,
        ended=lambda record: record.final,
        view=lambda record, _: scan_line(record),
        news=news,
        on_interrupt="It goes on; `scheduler vcenter list` shows the outcome.",
    )


def vcenter_as_json(session: Session, vcenter: Vcenter) -> dict[str, Any]:
    """The vCenter as a fleet file has it, with all defaults, and what is known of it."""
    vms = session.scalar(select(func.count()).select_from(VcenterVm).where(VcenterVm.vcenter == vcenter.name))
    asked = select(VcenterScan).where(VcenterScan.vcenter == vcenter.name).order_by(VcenterScan.created_at.desc())
    last = session.scalars(asked.limit(1)).first()
    return {
        **stored_vcenter(vcenter).model_dump(mode="json"),
        "vms": vms or 0,
        "scanned": iso(vcenter.scanned_at),
        "last_rescan": scan_record(last).model_dump(mode="json") if last is not None else None,
    }
