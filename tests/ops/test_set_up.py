"""What sets a machine up agrees with itself: dependencies with their locks, units and containers with the rules."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"]),
        ("requirements-dev.lock", PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]),
        ("requirements-build.lock", PROJECT["dependency-groups"]["build"]),
    ],
)
def test_every_dependency_is_locked_in_a_version_that_is_wanted(lock: str, requirements: Iterable[object]) -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
    wanted = [Requirement(text) for text in requirements if isinstance(text, str)]
    unmet = [str(one) for one in wanted if one.name not in pinned or pinned[one.name] not in one.specifier]
    assert unmet == [], "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_hashes_and_no_package_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[\w.-]+==)", text)[1:])


def test_ci_runs_what_a_developer_runs() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make")] == ["make lint", "make test"]


def test_without_root_a_missing_package_is_named_and_not_installed(tmp_path: Path) -> None:
    """With an empty PATH nothing is found; as an ordinary user, the script says what to install."""
    script = (ROOT / "ops/install-system-packages").read_text()
    folder = tmp_path / "ops"
    folder.mkdir()
    listed = "imaginary-package  demo  imaginary-command\ne2fsprogs  demo  sh\n"
    (folder / "system-packages.txt").write_text(listed)
    copy = folder / "install-system-packages"
    copy.write_text(script.replace("EUID == 0", "EUID == 4294967295"))
    copy.chmod(0o755)

    done = subprocess.run([copy, "demo"], capture_output=True, text=True, check=False, env=dict(os.environ))

    assert done.returncode == 1
    assert "apt-get install imaginary-package\n" in done.stderr
    assert subprocess.run([copy, "tests"], check=False).returncode == 0


@pytest.mark.parametrize(
    "unit", ["proxyfleet-gateway.service", "proxyfleet-proxy.service", "proxyfleet-scheduler.service"]
)
def test_units_run_unprivileged_and_end_everything_they_started(unit: str) -> None:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    parser.read(ROOT / "ops/systemd" / unit)
    service = parser["Service"]
    assert service["User"] == "proxyfleet"
    assert service["KillMode"] == "mixed", "the main process drains; then the whole control group is killed"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"


def test_the_warden_starts_as_root_with_no_more_than_it_needs_to_become_somebody_else() -> None:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    parser.read(ROOT / "ops/systemd/proxyfleet-warden@.service")
    service = parser["Service"]
    assert "User" not in service
    assert set(service["CapabilityBoundingSet"].split()) == {
        "CAP_LINUX_IMMUTABLE",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_CHOWN",
    }
    assert (service["NoNewPrivileges"], service["PrivateNetwork"]) == ("yes", "yes")
