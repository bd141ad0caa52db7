"""`make demo-vsphere`: VMs of a simulated vCenter, backed up and restored by a fleet on one machine."""

from __future__ import annotations

import sys
from pathlib import Path

from ops.demo.processes import Supervisor
from ops.demo.telling import main
from ops.demo_vsphere.layout import VsphereLayout
from ops.demo_vsphere.story import VsphereStory


def _begin(state: Path, redis_port: int, flower_port: int, supervisor: Supervisor) -> VsphereStory:
    return VsphereStory(VsphereLayout(state, redis_port=redis_port, flower_port=flower_port), supervisor)


if __name__ == "__main__":
    sys.exit(main("demo-vsphere", __doc__, Path(".demo-vsphere"), _begin))
