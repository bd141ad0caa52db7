"""Proxies that are drained, throttled, resumed and newly connected in the middle of a run, as real processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, make_machines
from proxy_worker.ledger import Ledger
from tests.system.live_fleet import LiveFleet, explained, wait_until

DISKS = 4
MACHINE = Machine("db01", "ds", tuple(Disk(f"scsi0:{number}", 16, 16, filesystem=False) for number in range(DISKS)))
ELSEWHERE = Machine("idle01", "other", (Disk("scsi0:0", 1, 1, filesystem=False),))
JOBS = """
[[datastore]]
name = "other"
site = "primary"
[[job]]
name = "slowly"
vms = ["db01"]
repository = "main"
transport_mode = "network"
"""


def _proxy(fleet: LiveFleet, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = fleet.read_json("scheduler", "proxy", "show", name, "--json")
    return shown


def _reasons(fleet: LiveFleet) -> set[str]:
    return {disk["reason"] or "" for disk in fleet.newest_run()["disks"] if disk["state"] == "queued"}


def _ledger(fleet: LiveFleet) -> Ledger:
    return Ledger(fleet.valkey.url, password=fleet.valkey.password)


@contextmanager
def _held(fleet: LiveFleet, ledger: Ledger, name: str, disks: int) -> Iterator[None]:
    """While a proxy reads so many disks and gets no further with them."""
    main = psutil.Process(fleet.main_process(name))

    def servers() -> list[psutil.Process]:
        return [child for child in main.children(recursive=True) if child.name() == "nbdkit"]

    def reading() -> bool:
        return ledger.view().proxies[name].slots_used == disks == len(servers())

    wait_until(reading, f"{name} to read {disks} disks", every_s=0.05)
    stopped = servers()
    for server in stopped:
        server.suspend()
    yield
    for server in stopped:
        server.resume()


def test_a_run_goes_on_while_proxies_leave_and_join(tmp_path: Path) -> None:
    make_machines((MACHINE, ELSEWHERE), tmp_path / "datastores", tmp_path / "scratch")
    places = [ProxyPlace("proxy-1", "primary", "ds"), ProxyPlace("proxy-2", "primary", "other")]
    with LiveFleet(tmp_path, places, JOBS, nbd_mib_s=8) as fleet, explained(fleet), _ledger(fleet) as ledger:
        fleet.command("scheduler", "job", "start", "slowly")
        with _held(fleet, ledger, "proxy-1", 2):
            fleet.command("scheduler", "proxy", "drain", "proxy-1")
            draining = _proxy(fleet, "proxy-1")
        fleet.command("scheduler", "proxy", "drain", "proxy-1", "--wait")
        drained = _proxy(fleet, "proxy-1")
        waiting = _reasons(fleet)

        fleet.command("scheduler", "proxy", "set", "proxy-2", "--max-concurrent-tasks", "1")
        fleet.kill("proxy-2", whole_group=True)
        fleet._configure(ProxyPlace("proxy-2", "primary", "ds"))
        fleet.start("proxy-2")
        with _held(fleet, ledger, "proxy-2", 1):
            fleet.command("scheduler", "proxy", "resume", "proxy-1")
            wait_until(lambda: ledger.view().proxies["proxy-1"].slots_used == 1, "proxy-1 to take the last disk")
        wait_until(lambda: fleet.newest_run()["state"] not in {"running", "scanning"}, "the run to end")
        run = fleet.newest_run()

    assert (draining["state"], len(draining["tasks"])) == ("draining", 2)
    assert (drained["state"], drained["tasks"], drained["used"]) == ("disabled", [], 0)
    assert waiting == {"no proxy that is running reaches datastore ds"}
    assert run["state"] == "succeeded"
    assert {disk["attempts"] for disk in run["disks"]} == {1}
    assert {disk["proxy"] for disk in run["disks"]} == {"proxy-1", "proxy-2"}
