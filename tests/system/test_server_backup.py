"""The backup server is destroyed, and restored by one command: the fleet goes on where it was."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, change, flat_path, make_machines
from tests.system.live_fleet import SCHEDULER, LiveFleet, explained, wait_until

MACHINE = Machine("web01", "ds", (Disk("scsi0:0", 32, 8, filesystem=False),))
PROXY = ProxyPlace("proxy-1", "primary", "ds")
JOBS = """
[[job]]
name = "nightly"
vms = ["web01"]
repository = "main"
"""


def test_a_server_that_was_lost_goes_on_after_one_command(tmp_path: Path) -> None:
    make_machines([MACHINE], tmp_path / "datastores", tmp_path / "scratch")
    with LiveFleet(tmp_path, [PROXY], JOBS) as fleet, explained(fleet):
        layout = fleet.layout
        config = layout.scheduler_config
        config.write_text(f'{config.read_text()}\n[server_backup]\nrepository = "main"\n')
        fleet.command("scheduler", "job", "start", "nightly", "--wait")
        before = fleet.newest_run()
        fleet.command("scheduler", "server", "backup", "now")
        fleet.command("scheduler", "job", "start", "nightly", "--wait")
        (newest, *_) = fleet.read_json("scheduler", "server", "backup", "list", "--json")

        passphrase = tmp_path / "kept-elsewhere"
        shutil.copy(layout.passphrase, passphrase)
        fleet.kill(SCHEDULER, whole_group=True)
        shutil.rmtree(layout.state / "scheduler")
        shutil.rmtree(layout.secrets("server"))
        config.unlink()

        server = tmp_path / "new-machine" / "server"
        restored = fleet.read_json(
            *("scheduler", "server", "restore", "--repository", str(layout.repository)),
            *("--passphrase-file", str(passphrase), "--to", str(server), "--json"),
        )
        assert restored["point"] == newest["point"]
        assert (server / "secrets/main.passphrase").stat().st_mode & 0o777 == 0o600
        shutil.copy(server / "scheduler.toml", config)  # where the fleet's commands look for it
        fleet.start(SCHEDULER)

        wait_until(fleet.all_up, "the proxies to be accepted again")
        change(MACHINE, MACHINE.disks[0], layout.datastores, tmp_path / "scratch", day=1)
        fleet.command("scheduler", "job", "start", "nightly", "--wait")
        run = fleet.newest_run()
        assert run["run"] != before["run"]
        (disk,) = run["disks"]
        assert disk["state"] == "succeeded", run
        assert disk["parent"] is not None
        assert disk["full_read_reason"] is None
        assert 0 < disk["stored_bytes"] < before["disks"][0]["stored_bytes"]
        points = fleet.read_json("scheduler", "point", "list", "--vm", "web01", "--json")
        assert len(points) == 3, "the one that was made after the server's backup wasn't found again"

        target = tmp_path / "restored.img"
        fleet.command(
            *("scheduler", "restore", "disk", "--vm", "web01", "--disk", "scsi0:0", "--to", str(target), "--wait")
        )
        original = flat_path(layout.datastores / "ds" / "web01", MACHINE.disks[0])
        assert _digest(target) == _digest(original)
        fleet.command("scheduler", "server", "backup", "now")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
