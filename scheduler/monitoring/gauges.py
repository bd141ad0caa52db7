"""A gauge from its samples in one go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import GaugeMetricFamily

Sample = tuple[Sequence[str], float]
"""Values of the labels, and the value itself."""


def gauge(name: str, text: str, labels: Sequence[str], samples: Iterable[Sample]) -> GaugeMetricFamily:
    """A family of gauges; without samples it has its help and no series."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(list(values), value)
    return family
