"""How long datastores take to answer their hosts, by vCenter's performance counters.

Counters `datastore.totalReadLatency` and `datastore.totalWriteLatency`, in milliseconds, which every host samples
each 20 seconds per datastore: what the guests see, the kernel's queue included (vSphere Web Services API,
PerformanceManager).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pyVmomi import vim

from proxy_worker.vsphere.inventory import unescaped
from proxy_worker.vsphere.properties import ObjectProperties, reference, retrieve
from proxy_worker.vsphere.session import Session

SAMPLE_S: Final = 20
"""How often hosts measure."""
_SAMPLES: Final = 3
"""The newest so many are averaged: one slow moment isn't a slow datastore."""
_COUNTERS: Final = frozenset({"totalReadLatency", "totalWriteLatency"})


def datastore_latency_ms(session: Session) -> dict[str, float]:
    """Milliseconds by name of datastore: the slower of reads and writes, on the host that waits longest.

    Datastores that no connected host measures are absent. Raises what `Session.call` raises.
    """
    what = f"reading how long datastores of vCenter {session.endpoint.name} take to answer"
    return session.call(what, lambda: _read(session), repeatable=True)


def _read(session: Session) -> dict[str, float]:
    performance = session.content.perfManager
    counters = [
        counter.key
        for counter in performance.perfCounter
        if counter.groupInfo.key == "datastore"
        and counter.nameInfo.key in _COUNTERS
        and counter.rollupType == "average"
    ]
    found = list(
        retrieve(
            session,
            {
                vim.Datastore: ("name", "summary.url"),
                vim.HostSystem: ("datastore", "runtime.connectionState"),
            },
        )
    )
    datastores = {one.ref: one for one in found if one.kind == "Datastore"}
    hosts = [one for one in found if one.kind == "HostSystem" and one["runtime.connectionState"] == "connected"]
    questions = [_question(session, host, datastores, counters) for host in hosts if host["datastore"]]
    by_instance = slowest(performance.QueryPerf(questions)) if questions and counters else {}
    return {
        unescaped(one["name"] or one.ref): by_instance[_instance(one)]
        for one in datastores.values()
        if _instance(one) in by_instance
    }


def slowest(answers: Sequence[vim.PerformanceManager.EntityMetric]) -> dict[str, float]:
    """The mean of each instance's samples, of the counter and host where it is highest."""
    found: defaultdict[str, float] = defaultdict(float)
    for answer in answers:
        for series in answer.value:
            samples = [value for value in series.value if value >= 0]  # -1 stands for none
            if samples:
                mean = sum(samples) / len(samples)
                found[series.id.instance] = max(found[series.id.instance], mean)
    return dict(found)


def _question(
    session: Session, host: ObjectProperties, datastores: Mapping[str, ObjectProperties], counters: Sequence[int]
) -> Any:
    mounted = [
        datastores[ref] for ref in map(reference, host["datastore"]) if ref is not None and ref in datastores
    ]
    return vim.PerformanceManager.QuerySpec(
        entity=vim.HostSystem(host.ref, session.stub),
        metricId=[
            vim.PerformanceManager.MetricId(counterId=counter, instance=_instance(one))
            for one in mounted
            for counter in counters
        ],
        intervalId=SAMPLE_S,
        maxSample=_SAMPLES,
        format="normal",
    )


def _instance(datastore: ObjectProperties) -> str:
    """What counters call it: the last part of its URL, `ds:///vmfs/volumes/<uuid>/`."""
    return str(datastore["summary.url"] or "").rstrip("/").rpartition("/")[2]
