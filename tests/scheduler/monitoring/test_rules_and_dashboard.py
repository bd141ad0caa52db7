"""Alert rules and dashboard: what they ask for exists, and Prometheus understands how they ask."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scheduler.monitoring.conftest import REPOSITORY, Exposition

PROMETHEUS = REPOSITORY / "ops/prometheus"
DASHBOARD = REPOSITORY / "ops/grafana/proxyfleet.json"
SELECTOR = re.compile(r"(proxyfleet_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"")
GROUPING = re.compile(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)")


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def expressions_of_dashboard() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "5m")


def expressions_of_alerts() -> Iterator[str]:
    for line in (PROMETHEUS / "alerts.yml").read_text().splitlines():
        if line.strip().startswith("expr: "):
            yield line.partition("expr: ")[2]


def promtool(*words: str, folder: Path) -> str:
    done = subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("source", [expressions_of_alerts, expressions_of_dashboard])
def test_every_metric_with_every_label_exists(source: Any, everything: Exposition) -> None:
    expressions = list(source())
    assert len(expressions) > 20
    known = everything.labels
    for expression in expressions:
        grouped: set[str] = set()
        for names in GROUPING.findall(expression):
            grouped |= {name.strip() for name in names.split(",")}
        asked: set[str] = set()
        for name, matchers in SELECTOR.findall(expression):
            assert name in known, f"{name} in {expression}"
            for label, value in LABEL.findall(matchers):
                assert label in known[name], f"{label} of {name} in {expression}"
                values = {dict(labels).get(label) for metric, labels in everything.values if metric == name}
                fits = any(re.fullmatch(value, one or "") for one in values)
                assert fits, f"{label}={value} of {name}: {values}"
            asked |= known[name]
        assert grouped <= asked, f"{grouped - asked} in {expression}"


def test_prometheus_understands_the_rules_and_they_fire_when_they_should() -> None:
    assert "23 rules found" in promtool("check", "rules", "alerts.yml", folder=PROMETHEUS)
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml", folder=PROMETHEUS)
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", folder=PROMETHEUS)


def test_prometheus_understands_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions_of_dashboard())]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", "rules.yml", folder=tmp_path)


def test_the_dashboard_holds_together() -> None:
    made = dashboard()
    panels = made["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    for place in places:
        assert place["x"] + place["w"] <= 24
    cells = [
        (x, y) for place in places for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]  # fmt: skip
    assert len(cells) == len(set(cells)), "panels overlap"
    sources = {target["datasource"]["uid"] for panel in panels for target in panel.get("targets", ())}
    assert sources == {f"${{{made['templating']['list'][0]['name']}}}"}
