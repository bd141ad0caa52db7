"""A copy job of a real fleet, to a gateway: held up by a traffic rule, killed in mid-copy, restored from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, change, flat_path, make_machines
from tests.system.far_fleet import FarFleet
from tests.system.live_fleet import explained, wait_until

MACHINE = Machine("web01", "ds", (Disk("scsi0:0", 32, 24, filesystem=False),))
FAR = """
[[repository]]
name = "far"
location = "{url}"
site = "primary"
credential = "far"
proxies = ["proxy-1"]
host = "10.9.0.5"
[[job]]
name = "nightly"
vms = ["web01"]
repository = "main"
[[job]]
name = "offsite"
kind = "copy"
copy_from = { repository = "main", points = "all" }
repository = "far"
[[traffic_rule]]
name = "wan"
source = ["10.1.0.0/16"]
target = ["10.9.0.0/24"]
limit = "10 kB/s"
"""


class CopyingFleet(FarFleet):
    """`proxy-1` reads `main` and adds to `far`, behind the gateway.

    Where the two are said to stand makes the rule hold: a copy takes most of an hour.
    """

    def _write_files(self) -> None:
        super()._write_files()
        layout = self.layout
        layout.write_secret(layout.secrets("proxies") / "main.passphrase", layout.passphrase.read_text().strip())

    def _configure(self, proxy: ProxyPlace) -> None:
        super()._configure(proxy)
        config = self.layout.proxy_config(proxy.name)
        config.write_text(f'address = "10.1.0.7"\n{config.read_text()}')


def test_a_copy_survives_its_proxy_and_what_it_stored_is_restored_equal(tmp_path: Path) -> None:
    make_machines([MACHINE], tmp_path / "datastores", tmp_path / "scratch")
    with CopyingFleet(tmp_path, [ProxyPlace("proxy-1", "primary", "ds")], FAR) as fleet, explained(fleet):
        disk = flat_path(fleet.layout.datastores / "ds" / "web01", MACHINE.disks[0])
        fleet.command("scheduler", "job", "start", "nightly", "--wait")
        change(MACHINE, MACHINE.disks[0], fleet.layout.datastores, tmp_path / "scratch", day=1)
        fleet.command("scheduler", "job", "start", "nightly", "--wait")

        fleet.command("scheduler", "job", "start", "offsite")
        wait_until(lambda: any((fleet.far / "writers").glob("*/*/*")), "the copy to have begun")
        fleet.kill("proxy-1", whole_group=True)
        fleet.command("scheduler", "traffic-rule", "remove", "wan")
        fleet.start("proxy-1")
        run = fleet.newest_run()["run"]
        fleet.command("scheduler", "run", "watch", run)

        first, second = fleet.read_json("scheduler", "run", "show", run, "--json")["disks"]
        assert (first["attempts"], second["attempts"]) == (2, 1)
        assert second["parent"] == first["original"]
        assert second["stored_bytes"] < first["stored_bytes"]
        points = fleet.read_json("scheduler", "point", "list", "--vm", "web01", "--json")
        copies = {point["point"]: point for point in points if point["repository"] == "far"}
        originals = {point["point"]: point for point in points if point["repository"] == "main"}
        assert copies.keys() == originals.keys() == {first["original"], second["original"]}
        assert [copies[name]["created"] for name in copies] == [originals[name]["created"] for name in copies]
        target = tmp_path / "restored.img"
        fleet.by_hand(
            *("proxy-1", "restore", "--repository", fleet.url, *fleet.opening, "--vm", "web01"),
            *("--disk", "scsi0:0", "--to", str(target)),
        )
        assert _digest(target) == _digest(disk)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
