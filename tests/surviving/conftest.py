"""One fleet for all tests of this folder; each leaves it whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.demo.machines import Disk, Machine
from tests.surviving.fleet import HurtFleet
from tests.system.live_fleet import explained

PROXIES = ("proxy-1", "proxy-2", "proxy-3")
MACHINES = tuple(
    Machine(f"vm{number}", "ds", tuple(Disk(f"scsi0:{unit}", 16, 12, filesystem=False) for unit in range(2)))
    for number in range(3)
)
JOBS = """
[[job]]
name = "everything"
vms = ["vm*"]
repository = "main"
transport_mode = "network"
retries = { count = 8, wait_minutes = 0.02 }
"""


@pytest.fixture(scope="session")
def whole_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HurtFleet]:
    """Three proxies with two slots each, six disks of two to three seconds."""
    state = tmp_path_factory.mktemp("surviving")
    with HurtFleet(state, MACHINES, PROXIES, JOBS, nbd_mib_s=4, hurried=True) as fleet:
        yield fleet


@pytest.fixture
def fleet(whole_fleet: HurtFleet) -> Iterator[HurtFleet]:
    """The fleet, mended after the test whatever has happened in it."""
    with explained(whole_fleet):
        yield whole_fleet
        whole_fleet.heal()
        whole_fleet.settle()
