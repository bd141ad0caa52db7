"""How long datastores take to answer, as counters tell.

The simulated vCenter takes the question and has no samples for it; what becomes of samples is shown on answers made
here.
"""

from __future__ import annotations

from pyVmomi import vim

from proxy_worker.vsphere.latency import datastore_latency_ms, slowest
from proxy_worker.vsphere.session import Session


def _answer(**samples: list[int]) -> vim.PerformanceManager.EntityMetric:
    series = [
        vim.PerformanceManager.IntSeries(
            id=vim.PerformanceManager.MetricId(counterId=1, instance=instance), value=values
        )
        for instance, values in samples.items()
    ]
    return vim.PerformanceManager.EntityMetric(value=series)


def test_a_datastore_is_as_slow_as_for_the_host_that_waits_longest() -> None:
    answers = [_answer(ds1=[10, 20, 30], ds2=[5]), _answer(ds1=[40, 50, 60], ds2=[1])]
    assert slowest(answers) == {"ds1": 50.0, "ds2": 5.0}


def test_missing_samples_count_for_nothing() -> None:
    assert slowest([_answer(ds1=[-1, 30, -1], ds2=[-1], ds3=[])]) == {"ds1": 30.0}


def test_a_vcenter_takes_the_question(session: Session) -> None:
    assert datastore_latency_ms(session) == {}
