"""Who gets copies of restore points, and who may reach a repository that isn't encrypted."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from proxy_worker.contract.names import TaskKind, TransportMode
from scheduler.dispatch.fleet import Fleet, FleetProxy, FleetRepository, PendingTask, Placement, Urgency
from scheduler.dispatch.limits import Limits, repository_cap
from scheduler.dispatch.policy import decide
from scheduler.planning.traffic import TrafficRule

NOW = 1_000_000.0
DIRECT = TransportMode.DIRECT_STORAGE
MAIN = FleetRepository("main", "primary", "main")
TWO = {"main": MAIN, "second": FleetRepository("second", "remote", "second", proxies=("p*",))}
BOTH_KEYS = {"main": "read", "second": "write"}


def proxy(name: str, **changes: object) -> FleetProxy:
    fields: dict[str, object] = {
        "site": "primary",
        "slots": 2,
        "used": 0,
        "datastores": {"ds1": (DIRECT,)},
        "modes": (),
        "credentials": {"main": "read"},
    }
    return FleetProxy(name=name, **{**fields, **changes})  # type: ignore[arg-type]  # of several types


def backup(task_id: str) -> PendingTask:
    placement = Placement(TaskKind.DISK_BACKUP, repository="main", datastore="ds1")
    return PendingTask(task_id, placement, "nightly", Urgency.REGULAR, NOW)


def copy(task_id: str, *, needs_read_key: bool = True) -> PendingTask:
    placement = Placement(TaskKind.DISK_COPY, repository="second", source="main", needs_read_key=needs_read_key)
    return PendingTask(task_id, placement, "offsite", Urgency.COPY, NOW)


def test_a_repository_that_is_not_encrypted_is_kept_off_lines_that_ask_for_encryption() -> None:
    sealed = TrafficRule(name="sealed", source=("10.1.0.0/16",), target=("10.9.0.5",), encrypt=True)
    plain = replace(MAIN, credential=None, plain_at=ip_address("10.9.0.5"), encryption=(sealed,))
    there, near = proxy("p1", address=ip_address("10.1.0.7")), proxy("p2", address=ip_address("10.9.0.6"))

    refused = decide([backup("t")], Fleet((there,), {"main": plain}), Limits(), NOW)
    assert refused.waiting["t"] == (
        "waiting: no proxy that reaches datastore ds1 may send plain data to repository main, which isn't "
        "encrypted: traffic rule sealed asks for encryption"
    )
    decision = decide([backup("t")], Fleet((there, near, proxy("p3")), {"main": plain}), Limits(), NOW)
    assert [release.proxy for release in decision.releases] in (["p2"], ["p3"])


def test_a_copy_goes_to_who_reaches_both_repositories_with_the_keys_that_it_takes() -> None:
    far = proxy("p1", site="remote", credentials=BOTH_KEYS)
    reader, writer = (
        proxy("p2", credentials=BOTH_KEYS),
        proxy("p3", credentials={"main": "write", "second": "write"}),
    )
    old = proxy("p4", credentials=BOTH_KEYS, contract_version=2)

    decision = decide([copy("t")], Fleet((far, reader, writer, old), TWO), Limits(), NOW)
    assert [release.proxy for release in decision.releases] == ["p2"]
    sealed = decide([copy("t", needs_read_key=False)], Fleet((writer,), TWO), Limits(), NOW)
    assert [release.proxy for release in sealed.releases] == ["p3"]

    def reason(*proxies: FleetProxy) -> str:
        return decide([copy("t")], Fleet(proxies, TWO), Limits(), NOW).waiting["t"]

    assert reason(far) == (
        "waiting: no proxy that reaches repository second reaches repository main (all of site primary may)"
    )
    assert reason(writer) == (
        "waiting: no proxy that reaches repository second holds the read key of repository main (main)"
    )
    assert reason(old) == "waiting: no proxy that is running knows tasks of kind disk.copy: upgrade one"
    assert reason(replace(reader, used=2)) == "waiting: proxy p2 is full (2 of 2 slots)"


def test_copies_go_last_and_count_at_both_repositories() -> None:
    one = proxy("p1", credentials=BOTH_KEYS, slots=1)
    decision = decide([copy("c"), backup("b")], Fleet((one,), TWO), Limits(), NOW)
    assert [release.task_id for release in decision.releases] == ["b"]

    for name in ("main", "second"):
        full = Limits(caps={repository_cap(name): 0})
        waiting = decide([copy("c")], Fleet((one,), TWO), full, NOW).waiting
        assert waiting == {"c": f"waiting: repository {name} has 0 of 0 tasks at once"}
