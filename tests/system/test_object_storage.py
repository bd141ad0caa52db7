"""A fleet whose repository is in object storage: backups, a restore, a collection, and the server's own backup."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, change, flat_path, make_machines
from tests.simulators.object_storage import ACCESS_KEY, ObjectStorage, serving
from tests.system.commands import BIN
from tests.system.live_fleet import LiveFleet, explained, wait_until

MACHINE = Machine("web01", "ds", (Disk("scsi0:0", 32, 8, filesystem=False),))
CLOUD = """
[[repository]]
name = "cloud"
location = "{url}"
site = "primary"
credential = "cloud"
[[job]]
name = "nightly"
vms = ["web01"]
repository = "cloud"
"""


class CloudFleet(LiveFleet):
    """Each machine holds the access key as `cloud.s3`, beside what opens the repository."""

    def __init__(self, state: Path, storage: ObjectStorage) -> None:
        self._storage = storage
        self._url = storage.url()
        super().__init__(state, [ProxyPlace("proxy-1", "primary", "ds")], CLOUD.replace("{url}", self._url))

    def _write_files(self) -> None:
        super()._write_files()
        layout = self.layout
        config = layout.scheduler_config
        config.write_text(f'{config.read_text()}\n[server_backup]\nrepository = "cloud"\n')
        for holder in ("server", "proxies"):
            layout.write_secret(layout.secrets(holder) / "cloud.s3", "\n".join(ACCESS_KEY))
        passphrase = layout.secrets("server") / "cloud.passphrase"
        layout.write_secret(passphrase)
        opening = ("--passphrase-file", str(passphrase))
        self._by_hand("repository", "init", self._url, *opening)
        key = layout.secrets("proxies") / "cloud.key"
        self._by_hand("repository", "keys", "export-write", self._url, *opening, "--out", str(key))

    def _by_hand(self, *words: str) -> None:
        access = self._storage.environment
        subprocess.run([BIN / "proxy-worker", *words], env=os.environ | access, check=True, stdout=subprocess.PIPE)


def test_the_whole_life_of_backups_in_object_storage(tmp_path: Path) -> None:
    make_machines([MACHINE], tmp_path / "datastores", tmp_path / "scratch")
    (tmp_path / "storage").mkdir()
    with serving(tmp_path / "storage") as storage, CloudFleet(tmp_path, storage) as fleet, explained(fleet):
        disk = flat_path(fleet.layout.datastores / "ds" / "web01", MACHINE.disks[0])
        first = fleet.read_json("scheduler", "job", "start", "nightly", "--wait", "--json")
        change(MACHINE, MACHINE.disks[0], fleet.layout.datastores, tmp_path / "scratch", day=1)
        second = fleet.read_json("scheduler", "job", "start", "nightly", "--wait", "--json")
        assert second["disks"][0]["parent"] is not None
        assert 0 < second["disks"][0]["stored_bytes"] < first["disks"][0]["stored_bytes"]
        assert fleet.read_json("scheduler", "run", "report", second["run"], "--json")["requests"]["puts"] > 0

        target = tmp_path / "restored.img"
        fleet.command(
            *("scheduler", "restore", "disk", "--vm", "web01", "--disk", "scsi0:0", "--to", str(target), "--wait")
        )
        assert _digest(target) == _digest(disk)

        fleet.command("scheduler", "point", "delete", "web01", first["vms"][0]["point"])
        wait_until(lambda: first["vms"][0]["point"] not in _points(fleet), "the point to be removed")
        collected = fleet.read_json("scheduler", "repository", "collect", "cloud", "--wait", "--json")
        assert collected["freed_bytes"] > 0
        assert collected["requests"]["deletes"] > 0
        fleet.command("scheduler", "server", "backup", "now")


def _points(fleet: LiveFleet) -> str:
    return fleet.command("scheduler", "point", "list", "--vm", "web01", "--json")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
