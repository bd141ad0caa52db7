"""Take the pictures of `docs/images` from a real fleet that works: Flower, the report, the live status.

Run it as `python -m ops.pictures` after `make system`; it takes about two minutes. Look at what it made before it
is committed.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.terminal_theme import MONOKAI
from selenium import webdriver
from selenium.webdriver.common.by import By

from ops.demo.fleet import start_flower, wait_for_flower
from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, make_machines
from scheduler.cli import status as status_command
from scheduler.cli.live import LedgerWindow
from scheduler.cli.opening import opened_state
from scheduler.cli.status_record import StatusRecord
from scheduler.cli.status_view import live_view
from tests.system.live_fleet import LiveFleet, explained, wait_until

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NBD_MIB_S = 1
"""Slow enough that there is something to see."""
JOBS = """
[[job]]
name = "nightly"
vms = ["*"]
repository = "main"
transport_mode = "network"
"""
SIZES_MIB = {"app01": (32, 16), "db01": (72, 56), "mail01": (24,), "web01": (40,), "web02": (48,), "web03": (20,)}
EMPTY_MIB = 4
MACHINES = [
    Machine(
        name,
        "ds",
        tuple(Disk(f"scsi0:{n}", size, size - EMPTY_MIB, filesystem=False) for n, size in enumerate(sizes)),
    )
    for name, sizes in SIZES_MIB.items()
]
PROXIES = (ProxyPlace("proxy-1", "primary", "ds"), ProxyPlace("proxy-2", "primary", "ds"))
PATIENCE_S = 300
STATUS_COLUMNS, STATUS_LINES = 108, 30
FLOWER_SIZE = (1960, 1000)
PAGE_COLUMNS = 1240


def main() -> None:
    """Run the fleet and take all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        make_machines(MACHINES, state / "datastores", state / "scratch")
        with LiveFleet(state, PROXIES, JOBS, nbd_mib_s=NBD_MIB_S) as fleet, explained(fleet):
            start_flower(fleet.supervisor, fleet.layout)
            wait_for_flower(fleet.supervisor, fleet.layout)
            fleet.command("scheduler", "job", "start", "nightly")
            wait_until(lambda: _in_the_middle(fleet), "the middle of the run", timeout_s=PATIENCE_S)
            take_status(fleet)
            with _browser(state) as browser:
                take_flower(fleet, browser)
                fleet.kill("proxy-2", whole_group=True)  # the report shows what that cost
                fleet.start("proxy-2")
                run = fleet.newest_run()["run"]
                fleet.command("scheduler", "run", "watch", run, timeout_s=PATIENCE_S)
                page = state / "report.html"
                fleet.command("scheduler", "run", "report", run, "--html", str(page))
                take_report(browser, page)
            print(fleet.command("scheduler", "run", "report", run))


def take_status(fleet: LiveFleet) -> None:
    """The live view as a picture of a terminal."""
    out = Console(
        record=True,
        force_terminal=True,
        highlight=False,
        file=io.StringIO(),
        width=STATUS_COLUMNS,
        height=STATUS_LINES,
    )
    out.print(live_view(_seen(fleet), out, page=0))
    (IMAGES / "status.svg").write_text(out.export_svg(title="scheduler status", theme=MONOKAI))


def take_flower(fleet: LiveFleet, browser: webdriver.Chrome) -> None:
    """The list of tasks in Flower."""
    user = fleet.layout.flower_user.read_text().strip()
    browser.set_window_size(*FLOWER_SIZE)
    browser.get(f"http://{user}@127.0.0.1:{fleet.layout.flower_port}/tasks")
    rows = "#tasks-table tbody tr"
    wait_until(lambda: len(browser.find_elements(By.CSS_SELECTOR, rows)) > 1, "the table of tasks")
    browser.save_screenshot(str(IMAGES / "flower.png"))


def take_report(browser: webdriver.Chrome, page: Path) -> None:
    """The report, light and dark, from its head to its foot."""
    for scheme in ("light", "dark"):
        wish = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wish})
        browser.set_window_size(PAGE_COLUMNS, 1000)
        browser.get(page.as_uri())
        height = browser.execute_script("return document.documentElement.scrollHeight")
        browser.set_window_size(PAGE_COLUMNS, height + 150)
        browser.save_screenshot(str(IMAGES / f"report-{scheme}.png"))


def _in_the_middle(fleet: LiveFleet) -> bool:
    """Some disks are done, and most slots are taken."""
    disks = Counter(disk.state for run in _seen(fleet).runs for disk in run.disks)
    return disks["succeeded"] > 1 and disks["running"] > len(PROXIES)


def _seen(fleet: LiveFleet) -> StatusRecord:
    """What `scheduler status` sees."""
    with patch.dict(os.environ, fleet.environment()), opened_state() as opened:
        return status_command.look(opened, LedgerWindow())


@contextmanager
def _browser(folder: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in _arguments(folder):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield browser
    finally:
        browser.quit()


def _arguments(folder: Path) -> Sequence[str]:
    quiet = ("--headless", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-background-networking")
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()  # Chromium refuses its sandbox to root
    profile = f"--user-data-dir={folder / 'profile'}"
    return (*quiet, *sandbox, "--hide-scrollbars", "--disable-dev-shm-usage", profile)


if __name__ == "__main__":
    main()
