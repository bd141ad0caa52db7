"""What holds for every test: in CI nothing is skipped, and Hypothesis runs as this machine can afford."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_LONG = {"system", "surviving", "deployment"}
"""Folders of tests that start whole fleets or machines."""
pytest_plugins = ("tests.simulators.vsphere.simulator",)

settings.register_profile("default", deadline=timedelta(seconds=2), suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes, so that all workers end at about the same time."""
    items.sort(key=lambda item: not _LONG.isdisjoint(item.path.parts), reverse=True)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say, where it counts, that a skipped test has shown nothing."""
    if _skipped_in_ci(terminalreporter):
        terminalreporter.write_line("In CI a skipped test is a failure: it has shown nothing.", red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn a run with skipped tests into a failed one when it runs in CI."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and session.exitstatus == pytest.ExitCode.OK and _skipped_in_ci(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skipped_in_ci(reporter: Any) -> bool:
    unshown = ("skipped", "xfailed", "xpassed")
    return bool(os.environ.get("CI")) and any(reporter.stats.get(kind) for kind in unshown)
