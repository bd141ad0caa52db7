"""What people should know of a VM run that has not failed: several things, told in one line."""

from __future__ import annotations

from scheduler.state.models import VmRun

_BETWEEN = "; "


def warn(vm_run: VmRun, text: str) -> None:
    """Add `text` to what is told already, once."""
    if vm_run.warning is None:
        vm_run.warning = text
    elif text not in vm_run.warning:
        vm_run.warning += _BETWEEN + text


def unwarn(vm_run: VmRun, text: str) -> None:
    """Take back what doesn't hold any more."""
    left = (vm_run.warning or "").replace(_BETWEEN + text, "").replace(text + _BETWEEN, "").replace(text, "")
    vm_run.warning = left or None
