"""A fleet whose repository is behind a gateway: jobs, a cut link, a restore, and upkeep where it is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, flat_path, make_machines
from tests.surviving.relay import Wire
from tests.system.far_fleet import FarFleet
from tests.system.live_fleet import explained, wait_until

MACHINE = Machine("web01", "ds", (Disk("scsi0:0", 32, 24, filesystem=False),))
FAR = """
[[repository]]
name = "far"
location = "{url}"
site = "primary"
credential = "far"
proxies = ["proxy-1", "vault"]
[[job]]
name = "nightly"
vms = ["web01"]
repository = "far"
"""


@contextmanager
def far_fleet(state: Path) -> Iterator[FarFleet]:
    places = [ProxyPlace("proxy-1", "primary", "ds"), ProxyPlace("vault", "primary", "none")]
    with FarFleet(state, places, FAR) as fleet, explained(fleet):
        yield fleet


def test_a_job_backs_up_over_a_link_that_is_cut_and_only_the_gateways_own_proxy_removes(tmp_path: Path) -> None:
    make_machines([MACHINE], tmp_path / "datastores", tmp_path / "scratch")
    with far_fleet(tmp_path) as fleet:
        disk = flat_path(fleet.layout.datastores / "ds" / "web01", MACHINE.disks[0])
        fleet.command("scheduler", "job", "start", "nightly")
        wait_until(lambda: any((tmp_path / "far" / "writers").glob("*/*/*")), "the backup to have begun")
        fleet.relay.wire = Wire.CUT
        fleet.relay.wire = Wire.WHOLE
        wait_until(lambda: _ended(fleet), "the run to end")

        fleet.command("scheduler", "job", "start", "nightly", "--wait")
        again = fleet.newest_run()
        assert again["disks"][0]["parent"] is not None
        target = tmp_path / "restored.img"
        fleet.by_hand(
            *("proxy-1", "restore", "--repository", fleet.url, *fleet.opening, "--vm", "web01"),
            *("--disk", "scsi0:0", "--to", str(target)),
        )
        assert target.read_bytes() == disk.read_bytes()

        fleet.command("scheduler", "point", "delete", "web01", again["vms"][0]["point"])
        wait_until(lambda: len(_points(fleet)) == 1, "the point to be removed")
        assert len(list((tmp_path / "far" / "ended").glob("*/*"))) == 1


def _ended(fleet: FarFleet) -> bool:
    return bool(fleet.newest_run()["state"] == "succeeded")


def _points(fleet: FarFleet) -> list[object]:
    points: list[object] = fleet.read_json("scheduler", "point", "list", "--vm", "web01", "--json")
    return points
