"""Flower as a person sees it: a real browser, a real fleet, a running task with its live progress."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from ops.demo.fleet import start_flower, wait_for_flower
from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, make_machines
from tests.system.live_fleet import LiveFleet, explained, wait_until

WEB01 = Machine("web01", "ds", (Disk("scsi0:0", 64, 32, filesystem=False),))
JOBS = """
[[job]]
name = "nightly"
vms = ["*"]
repository = "main"
transport_mode = "network"
"""
NBD_MIB_S = 1
"""So slow that the disk is still being read when the browser looks."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    folder = tmp_path_factory.mktemp("flower")
    make_machines([WEB01], folder / "datastores", folder / "scratch")
    proxy = ProxyPlace("proxy-1", "primary", "ds")
    with LiveFleet(folder, [proxy], JOBS, nbd_mib_s=NBD_MIB_S) as live, explained(live):
        start_flower(live.supervisor, live.layout)
        wait_for_flower(live.supervisor, live.layout)
        live.command("scheduler", "job", "start", "nightly")
        yield live


def test_a_browser_shows_a_running_disk_by_name_with_its_progress(fleet: LiveFleet, tmp_path: Path) -> None:
    with _browser(tmp_path) as browser:
        task = _page(fleet, "/tasks", with_user=True)

        def row() -> str:
            browser.get(task)
            wait_until(lambda: browser.find_elements(By.CSS_SELECTOR, "#tasks-table tbody tr") != [], "the table")
            rows = browser.find_elements(By.CSS_SELECTOR, "#tasks-table tbody tr")
            return next((each.text for each in rows if "disk.backup" in each.text), "")

        seen: list[str] = []

        def two_stages() -> bool:
            found = re.search(r"disk\.backup web01 scsi0:0.*?(\d+)%", row(), re.DOTALL)
            if found and found[1] not in seen:
                seen.append(found[1])
            return len(seen) == 2

        wait_until(two_stages, "two different stages of progress", every_s=0.5)

        assert int(seen[0]) < int(seen[1]) <= 100
        assert "proxy@proxy-1" in re.sub(r"\s", "", row())


def test_nobody_gets_in_without_the_password(fleet: LiveFleet) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(_page(fleet, "/tasks"), timeout=60)
    assert refused.value.code == 401


def test_flower_shows_and_does_not_command(fleet: LiveFleet) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        _read(fleet, "/api/worker/shutdown/proxy@proxy-1", method="POST")
    assert refused.value.code == 403


@pytest.mark.parametrize("path", ["/", "/workers", "/worker/proxy@proxy-1", "/broker", "/tasks", "/api/tasks"])
def test_no_page_holds_a_secret(fleet: LiveFleet, path: str) -> None:
    text = _read(fleet, path)
    for folder in ("server", "proxies", "flower"):
        for file in fleet.layout.secrets(folder).iterdir():
            for secret in file.read_text().split(":"):
                assert secret.strip() not in text or len(secret) < 8, f"{file.name} is on {path}"


def test_no_secret_stands_on_a_command_line(fleet: LiveFleet) -> None:
    password = fleet.layout.redis_password.read_text().strip()
    lines = subprocess.run(["ps", "-eo", "args", "-ww"], capture_output=True, text=True, check=True).stdout
    assert "flower" in lines
    assert password not in lines


def test_flower_says_which_secret_is_missing(fleet: LiveFleet, tmp_path: Path) -> None:
    environment = fleet.environment() | {"FLEET_SECRETS_DIR": str(tmp_path)}
    done = subprocess.run(
        [".venv/bin/celery", "-A", "ops.flower.app", "flower", "--conf=ops/flower/flowerconfig.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert f"secret file {tmp_path / 'redis'}: No such file or directory" in done.stderr


def _page(fleet: LiveFleet, path: str, *, with_user: bool = False) -> str:
    user = fleet.layout.flower_user.read_text().strip() + "@" if with_user else ""
    return f"http://{user}127.0.0.1:{fleet.layout.flower_port}{path}"


def _read(fleet: LiveFleet, path: str, *, method: str = "GET") -> str:
    user = base64.b64encode(fleet.layout.flower_user.read_bytes().strip()).decode()
    request = urllib.request.Request(_page(fleet, path), method=method, headers={"Authorization": f"Basic {user}"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(reply.read(), "utf-8")


@contextmanager
def _browser(folder: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        *("--headless", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-background-networking"),
        *("--disable-component-update", "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}"),
        *(("--no-sandbox",) if os.geteuid() == 0 else ()),  # Chromium refuses its sandbox to root
    ):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield browser
    finally:
        browser.quit()
