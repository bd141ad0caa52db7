"""Two sites and a link that is narrow, long and cut in the middle: all arrives whole, and little of it twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.demo.machines import MIB, Disk, Machine, flat_path, make_machines
from proxy_worker.contract.replication import DEFAULT_STREAMS
from proxy_worker.ledger import Ledger, Timings
from proxy_worker.mover.restore import RUN_BYTES, WRITERS_WAITING
from proxy_worker.replication.blocks import BLOCK_BYTES, PIECE_BLOCKS
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from tests.system.live_fleet import wait_until
from tests.system.two_site_fleet import TwoSiteFleet, two_site_fleet
from tests.two_sites import Checkpoint, Site

DISK_MIB = 80
"""More than a pack."""
FAR_AWAY = Machine("web01", "ds", (Disk("scsi0:0", DISK_MIB, 1, filesystem=False),))
APP_MIB = 32
APP = Machine("app01", "ds", (Disk("scsi0:0", APP_MIB, 1, filesystem=False),))
HALFWAY_BYTES = 20 * MIB
"""Of what a replication sends, with room behind it for all that may be sent twice."""
BRANCH_MIB = 16
BRANCH = Machine("branch01", "remote-ds", (Disk("scsi0:0", BRANCH_MIB, BRANCH_MIB, filesystem=False),))
JOBS = """
[[repository]]
name = "near"
location = "${state}/near"
site = "remote"
proxies = ["remote-1"]
[[job]]
name = "nightly"
vms = ["web01"]
repository = "far"
[[job]]
name = "branch"
vms = ["branch01"]
repository = "near"
transport_mode = "network"
[[job]]
name = "away"
kind = "replication"
vms = ["app01"]
[job.replica]
datastore = "remote-ds"
"""
OVERHEAD = 1.1
"""Of headers, and of what the link drops and TCP sends again."""
WORDS_BYTES = MIB
"""For all that is said beside: a KiB or two a second, and handshakes."""
CALLS_BYTES = DEFAULT_STREAMS * PIECE_BLOCKS * BLOCK_BYTES
"""What the calls of a replication hold that are under way when the link is cut, and made again as a whole: one for
each stream, of a piece of the disk, which can't be compressed. Whatever of it has crossed by then is sent twice."""
LONG = Timings(lease_s=600)
"""A lease that outlasts the cut, however slow the machine is: a proxy pauses after two thirds of it."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoSiteFleet]:
    state = tmp_path_factory.mktemp("sites")
    make_machines([FAR_AWAY, APP, BRANCH], state / "datastores", state / "scratch")
    disk_of(state, FAR_AWAY).write_bytes(random.Random(1).randbytes(DISK_MIB * MIB))
    disk_of(state, APP).write_bytes(random.Random(2).randbytes(APP_MIB * MIB))
    near = LocalStore(state / "near")
    near.prepare()
    Repository.create(near, passphrase=None).close()
    with two_site_fleet(state, JOBS, mbit_s=400, delay_s=0.02, nbd_mib_s=2) as fleet:
        yield fleet


def disk_of(state: Path, machine: Machine) -> Path:
    return flat_path(state / "datastores" / machine.datastore / machine.name, machine.disks[0])


def stored_bytes(folder: Path, part: str) -> int:
    """Of what lies there; files under way get another name meanwhile."""
    sizes = []
    for path in (folder / part).rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            sizes.append(found.st_size if stat.S_ISREG(found.st_mode) else 0)
    return sum(sizes)


def whole_bytes(fleet: TwoSiteFleet) -> int:
    return sum(stored_bytes(fleet.far, part) for part in ("packs", "index", "points", "writers"))


def succeeded(fleet: TwoSiteFleet) -> dict[str, Any]:
    """The newest run, when it has."""
    looked: list[dict[str, Any]] = []

    def look() -> bool:
        looked[:] = [fleet.newest_run()]
        return bool(looked[0]["state"] == "succeeded")

    wait_until(look, "the run to end")
    return looked[0]


def test_a_backup_and_a_restore_outlive_a_link_that_is_cut_and_send_little_twice(
    fleet: TwoSiteFleet, tmp_path: Path
) -> None:
    sites, packs = fleet.sites, fleet.far / "packs"
    middle = Checkpoint.after_bytes(fleet.relay, (DISK_MIB - 10) * MIB)
    fleet.command("scheduler", "job", "start", "nightly")
    assert middle.wait(120)
    sites.cut()
    middle.open()
    arrived = {path: path.stat().st_ino for path in packs.glob("*/*")}
    whole_before, sent_before = whole_bytes(fleet), sites.primary.sent_bytes()
    sites.mend()
    run = succeeded(fleet)

    missing = whole_bytes(fleet) - whole_before
    assert sites.primary.sent_bytes() - sent_before < OVERHEAD * missing + WORDS_BYTES
    assert {path: path.stat().st_ino for path in packs.glob("*/*")}.items() >= arrived.items()
    assert run["disks"][0]["attempts"] == 1

    target = tmp_path / "restored.img"
    sent_before = sites.remote.sent_bytes()
    middle = Checkpoint.after_bytes(fleet.relay, DISK_MIB // 2 * MIB)
    restoring = fleet.start_by_hand(
        *("proxy-1", "restore", "--repository", fleet.url, *fleet.opening, "--vm", "web01"),
        *("--disk", "scsi0:0", "--to", str(target)),
    )
    assert middle.wait(120)
    assert restoring.poll() is None
    sites.cut()
    middle.open()
    sites.mend()
    assert restoring.wait(120) == 0

    assert target.read_bytes() == disk_of(fleet.layout.state, FAR_AWAY).read_bytes()
    under_way = ((os.cpu_count() or 1) + WRITERS_WAITING) * RUN_BYTES
    assert sites.remote.sent_bytes() - sent_before < OVERHEAD * (DISK_MIB * MIB + under_way) + WORDS_BYTES


def test_a_replica_outlives_a_link_that_is_cut_while_it_is_made_failed_over_to_and_brought_back(
    fleet: TwoSiteFleet,
) -> None:
    sites, original = fleet.sites, disk_of(fleet.layout.state, APP)
    folder = fleet.layout.state / "datastores" / "remote-ds" / "app01_replica"
    replica = folder / "app01_replica-flat.vmdk"

    def state() -> str:
        return str(fleet.read_json("scheduler", "replica", "show", "app01", "--json")["state"])

    middle = Checkpoint.after_bytes(fleet.replicas["remote"], HALFWAY_BYTES)
    fleet.command("scheduler", "job", "start", "away")
    sent_bytes = sent_after_a_cut(fleet, middle, sites.primary)
    run = succeeded(fleet)
    assert sent_bytes() < OVERHEAD * (APP_MIB * MIB - HALFWAY_BYTES + CALLS_BYTES) + WORDS_BYTES
    assert run["disks"][0]["attempts"] == 1
    assert replica.read_bytes() == original.read_bytes()

    unsaid = Checkpoint(fleet.redis, lambda _: not is_in_use(folder))
    fleet.command("scheduler", "replica", "failover", "app01")
    cut(fleet, unsaid)
    wait_until(lambda: state() == "failed over", "the failover to end")
    assert replica.read_bytes() == original.read_bytes()

    replica.write_bytes(random.Random(3).randbytes(APP_MIB * MIB))
    middle = Checkpoint.after_bytes(fleet.replicas["primary"], HALFWAY_BYTES)
    fleet.command("scheduler", "replica", "failback", "app01")
    sent_bytes = sent_after_a_cut(fleet, middle, sites.remote)
    wait_until(lambda: state() == "failed back", "the failback to end")
    assert sent_bytes() < OVERHEAD * (APP_MIB * MIB - HALFWAY_BYTES + CALLS_BYTES) + WORDS_BYTES
    assert original.read_bytes() == replica.read_bytes() == random.Random(3).randbytes(APP_MIB * MIB)


def cut(fleet: TwoSiteFleet, middle: Checkpoint) -> None:
    """Cut the link when something is held up in the middle, and mend it."""
    assert middle.wait(120)
    fleet.sites.cut()
    middle.open()
    fleet.sites.mend()


def sent_after_a_cut(fleet: TwoSiteFleet, middle: Checkpoint, sender: Site) -> Callable[[], int]:
    """Cut the link in the middle, and tell how much a site has sent since it was mended."""
    assert middle.wait(120)
    before = sender.sent_bytes()
    cut(fleet, middle)
    return lambda: sender.sent_bytes() - before


def is_in_use(folder: Path) -> bool:
    """What is noted beside a replica."""
    noted = json.loads((folder / ".replica" / "state.json").read_bytes())
    return noted["condition"] == "failed_over" and not noted["reverting"]


def test_a_site_works_on_what_it_holds_while_redis_is_out_of_reach_for_less_than_its_lease(
    fleet: TwoSiteFleet,
) -> None:
    def near_bytes() -> int:
        near = fleet.layout.state / "near"
        return stored_bytes(near, "tmp") + stored_bytes(near, "packs")

    with Ledger(fleet.valkey.url, password=fleet.valkey.password) as ledger:
        ledger.join_epoch(ledger.epoch() or 0, LONG)
    # Not a mark: blocks, and so it has heard what it may send by traffic rules.
    stored = Checkpoint(fleet.redis, lambda _: near_bytes() < MIB)
    fleet.command("scheduler", "job", "start", "branch")
    assert stored.wait(120)
    fleet.sites.cut()
    stored.open()
    held = near_bytes()
    more = min(held + MIB, BRANCH_MIB * MIB)
    wait_until(lambda: near_bytes() >= more, "it to go on", every_s=0.02)
    fleet.sites.mend()

    assert succeeded(fleet)["disks"][0]["attempts"] == 1
    assert "paused" not in fleet.log("remote-1")
