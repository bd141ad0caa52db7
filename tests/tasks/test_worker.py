"""Real proxies: what they take and refuse, how they join and obey, and what a watcher sees."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import InventoryScanResult
from proxy_worker.contract.signing import sign
from proxy_worker.contract.specification import InventoryScan, TaskSpecification
from proxy_worker.ledger import TaskState
from proxy_worker.ledger.broker import lane_queue, publish
from tests.servers import PASSWORD
from tests.tasks.fleet import QUICK, Fleet, Proxy, wait_until

SCAN = InventoryScan(datastore="ds1")
LANE = "proxy.primary.proxy-1"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet with one proxy that runs, for tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("running")
    with EmbeddedValkey(folder / "valkey", PASSWORD) as server:
        made = Fleet(folder, server)
        add_proxy(made, "proxy-1")
        made.start()
        yield made
        made.end()


@pytest.fixture
def proxy(fleet: Fleet) -> Proxy:
    """A proxy of the test's own; started."""
    made = add_proxy(fleet, "proxy-1")
    fleet.start()
    return made


def add_proxy(fleet: Fleet, name: str, **settings: Any) -> Proxy:
    (fleet.folder / "ds1/web01").mkdir(parents=True, exist_ok=True)
    return fleet.add_proxy(name, tables=f'[datastores.ds1]\npath = "{fleet.folder / "ds1"}"', **settings)


def send_raw(fleet: Fleet, **message: Any) -> None:
    fleet.celery.send_task(str(SCAN.kind), queue=lane_queue(LANE), **message)


def resigned(fleet: Fleet, made: TaskSpecification, **changes: Any) -> bytes:
    return sign(made.model_copy(update=changes), fleet.key)


@contextlib.contextmanager
def watched(fleet: Fleet) -> Iterator[list[dict[str, Any]]]:
    """The events that Flower would see, from the first that arrives."""
    events: list[dict[str, Any]] = []
    with fleet.celery.connection_for_read() as connection:
        receiver = fleet.celery.events.Receiver(connection, handlers={"*": events.append})
        thread = threading.Thread(target=lambda: receiver.capture(limit=None, timeout=10, wakeup=False))
        thread.start()
        wait_until(lambda: events, "a first event")
        yield events
        receiver.should_stop = True
        thread.join()


@pytest.fixture
def own_fleet(tmp_path: Path, own_valkey: EmbeddedValkey) -> Iterator[Fleet]:
    """A fleet on a server that may be stopped."""
    made = Fleet(tmp_path, own_valkey)
    yield made
    made.end()


def announce(fleet: Fleet, task_id: str, number: int = 1, *, kind: TaskKind = SCAN.kind, lane: str = LANE) -> None:
    publish(fleet.celery, kind=kind, title="a forged title", lane=lane, task_id=task_id, number=number)


def test_task_is_claimed_done_and_reported(running: Fleet) -> None:
    ended = running.run(SCAN, proxy="proxy-1")

    assert ended.state is TaskState.DONE, ended
    assert ended.result == InventoryScanResult(vms=())
    assert (ended.kind, ended.proxy, ended.attempts) == (TaskKind.INVENTORY_SCAN, "proxy-1", 1)


def test_foreseeable_error_is_reported_in_its_own_words(running: Fleet) -> None:
    ended = running.run(InventoryScan(datastore="ds2"), proxy="proxy-1")

    assert ended.failure is not None
    assert ended.failure.code == "datastore-not-reached"
    assert str(ended.failure) == (
        "datastore ds2: proxy proxy-1 has no path to it. Set `path` under [datastores.ds2] in its proxy.toml."
    )
    assert "Traceback" not in running.proxies["proxy-1"].log


def test_messages_that_were_never_issued_or_altered_are_refused_and_logged(running: Fleet) -> None:
    task_id = running.submit(SCAN)
    assert running.dispatch(task_id, SCAN, lane="disk.nowhere") == 1  # a valid one that nobody consumes
    for refusal, forged in {
        "refused never-issued.1 of kind inventory.scan": {"task_id": "never-issued"},
        f"refused {task_id}.7 of kind inventory.scan on {LANE}: stale": {"task_id": task_id, "number": 7},
        f"refused {task_id}.1 of kind disk.restore on {LANE}: altered": {
            "task_id": task_id,
            "kind": TaskKind.DISK_RESTORE,
        },
        f"refused {task_id}.1 of kind inventory.scan on {LANE}: wrong-lane": {"task_id": task_id},
    }.items():
        announce(running, **forged)  # type: ignore[arg-type]
        wait_until(lambda refusal=refusal: refusal in running.proxies["proxy-1"].log, refusal)  # type: ignore[misc]

    send_raw(running, args=["one"])
    send_raw(running, args=[task_id, 1], kwargs={"more": 1})
    wait_until(
        lambda: running.proxies["proxy-1"].log.count("its arguments are not (task, number)") == 2,
        "malformed messages refused",
    )
    assert running.ledger.view().tasks[task_id].state is TaskState.DISPATCHED
    assert "Traceback" not in running.proxies["proxy-1"].log


def test_replayed_message_is_refused(running: Fleet) -> None:
    task_id = running.submit(SCAN)
    running.dispatch(task_id, SCAN, proxy="proxy-1")
    wait_until(running.ledger.finished, "end of the task")

    announce(running, task_id)

    wait_until(
        lambda: f"refused {task_id}.1 of kind inventory.scan on {LANE}: stale" in running.proxies["proxy-1"].log,
        "refusal",
    )
    assert len(running.ledger.finished()) == 1


def test_specification_that_the_scheduler_did_not_sign_so_is_refused(running: Fleet) -> None:
    stranger = Ed25519PrivateKey.generate()
    unknown = "it is not signed by a scheduler this proxy knows"
    tampered: dict[str, Callable[[TaskSpecification], bytes]] = {
        f"{unknown}": lambda made: sign(made, stranger),
        f"{unknown} ": lambda made: sign(made, running.key).replace(b'"ds1"', b'"ds2"'),
        "it was signed for another task or dispatch": lambda made: resigned(running, made, task_id="another"),
        "it was signed for lane proxy.primary.other, not proxy.primary.proxy-1": lambda made: resigned(
            running, made, audience="proxy.primary.other"
        ),
        "it was signed for epoch 9, not 1": lambda made: resigned(running, made, epoch=9),
    }
    for why, tamper in tampered.items():
        task_id = running.submit(SCAN)
        number = running.ledger.dispatch(
            task_id,
            lane=LANE,
            proxy="proxy-1",
            sign=lambda n, t=task_id, f=tamper: f(running.specification(t, SCAN, LANE, n)),  # type: ignore[misc]
        )
        assert number == 1
        announce(running, task_id)

        ended = running.outcome(task_id)

        assert ended.failure is not None
        assert (ended.failure.code, ended.failure.exit_code) == ("specification", 6)
        assert ended.failure.why == why.strip()


def test_task_whose_specification_expired_on_its_way_is_given_back(running: Fleet) -> None:
    """As when Redis' clock is set between dispatch and claim: the task has done nothing wrong."""
    task_id = running.submit(SCAN)
    running.ledger.dispatch(
        task_id,
        lane=LANE,
        proxy="proxy-1",
        sign=lambda number: resigned(running, running.specification(task_id, SCAN, LANE, number), expires_at=1.0),
    )
    announce(running, task_id)

    wait_until(lambda: running.ledger.view().tasks[task_id].note, "it is given back")

    task = running.ledger.view().tasks[task_id]
    assert (task.state, task.note) == (
        TaskState.READY,
        "proxy-1 could not take it: it expired before it was claimed",
    )
    running.dispatch(task_id, SCAN, proxy="proxy-1")
    assert running.outcome(task_id).state is TaskState.DONE


def test_redis_that_shows_a_specification_again_is_not_obeyed(running: Fleet) -> None:
    task_id = "shown-again"
    shown: list[bytes] = []

    def keep(number: int) -> bytes:
        if not shown:
            shown.append(sign(running.specification(task_id, SCAN, LANE, number), running.key))
        return shown[0]

    for expected in ("", "this proxy has obeyed it before; each is signed for one dispatch"):
        running.submit(SCAN, task_id=task_id)
        number = running.ledger.dispatch(task_id, lane=LANE, proxy="proxy-1", sign=keep)
        assert number == 1, "as hostile a ledger as this one counts from the start again"
        announce(running, task_id)

        failure = running.outcome(task_id).failure

        assert (failure.why if failure else "") == expected


def test_redis_that_goes_back_to_an_older_epoch_is_not_obeyed(
    fleet: Fleet, proxy: Proxy, valkey: EmbeddedValkey
) -> None:
    fleet.epoch = 7
    fleet.ledger.open_epoch(7, QUICK)
    wait_until(lambda: fleet.view("proxy-1"), "registered with the new epoch")
    assert fleet.run(SCAN, proxy="proxy-1").failure is None
    with redis.Redis(port=valkey.port, password=PASSWORD) as hostile:
        hostile.hset("{pf}:meta", "epoch", 6)
    fleet.epoch = 6
    fleet.ledger.join_epoch(6, QUICK)

    failure = fleet.run(SCAN, proxy="proxy-1").failure

    assert failure is not None
    assert failure.code == "replayed-specification"
    assert failure.why == "it is of epoch 6, and this proxy has obeyed epoch 7 already"


def test_nobody_commands_a_proxy_through_celery(running: Fleet) -> None:
    control = running.celery.control
    for name, arguments in {
        "shutdown": {},
        "pool_shrink": {"n": 3},
        "add_consumer": {"queue": "disk.elsewhere"},
        "revoke": {"task_id": "t", "terminate": True},
    }.items():
        [answer] = control.broadcast(name, arguments=arguments, reply=True, limit=1, timeout=120)
        assert "error" in answer["proxy@proxy-1"], name

    assert control.inspect(timeout=120, limit=1).ping() == {"proxy@proxy-1": {"ok": "pong"}}
    assert running.run(SCAN, proxy="proxy-1").failure is None


def test_proxy_follows_the_lanes_it_is_ordered_to(running: Fleet) -> None:
    running.ledger.set_proxy("proxy-1", lanes=["repository.main"], enabled=True)
    first = running.submit(SCAN)
    running.dispatch(first, SCAN, lane="repository.main")
    assert running.outcome(first).state is TaskState.DONE

    running.ledger.set_proxy("proxy-1", lanes=["repository.other"], enabled=True)
    wait_until(lambda: "Canceling queue repository.main" in running.proxies["proxy-1"].log, "lane given up")
    second = running.submit(SCAN)
    running.dispatch(second, SCAN, lane="repository.other")
    assert running.outcome(second).state is TaskState.DONE


def test_namesake_is_refused_with_a_message(running: Fleet) -> None:
    namesake = add_proxy(running, "namesake")
    namesake.configuration.write_text(namesake.configuration.read_text().replace('"namesake"', '"proxy-1"', 1))

    namesake.start()

    assert namesake.wait() == 9
    last = namesake.log.splitlines()[-1]
    assert last.startswith("proxy-worker: proxy name 'proxy-1': another proxy has registered it, at site 'primary'")
    assert last.endswith("Give each proxy a name and a state_dir of its own, or stop the other one.")
    assert "Traceback" not in namesake.log
    assert running.run(SCAN, proxy="proxy-1").state is TaskState.DONE


def test_wrong_password_is_refused_with_a_message(fleet: Fleet) -> None:
    proxy = add_proxy(fleet, "proxy-1")
    (proxy.folder / "secrets/redis").write_text("wrong")

    proxy.start()

    assert proxy.wait() == 10
    assert "Redis refuses the password" in proxy.log
    assert "Traceback" not in proxy.log
    assert fleet.server.password not in proxy.log


def test_proxy_waits_for_an_absent_server_and_says_so(own_fleet: Fleet) -> None:
    proxy = add_proxy(own_fleet, "proxy-1")
    own_fleet.server.stop()
    proxy.start()
    wait_until(lambda: "waiting for the ledger: ledger in Redis at redis://127.0.0.1" in proxy.log, "message")

    own_fleet.server.start()
    own_fleet.await_ready("proxy-1")

    assert own_fleet.run(SCAN, proxy="proxy-1").state is TaskState.DONE
    assert "Traceback" not in proxy.log


def test_proxy_registers_again_with_a_server_that_lost_its_data(own_fleet: Fleet) -> None:
    proxy = add_proxy(own_fleet, "proxy-1")
    own_fleet.start()
    with redis.Redis(port=own_fleet.server.port, password=own_fleet.server.password) as client:
        client.flushall()

    wait_until(lambda: own_fleet.view("proxy-1"), "registration")

    assert "the ledger has forgotten this proxy; registering again" in proxy.log


def test_idle_proxy_ends_in_order(fleet: Fleet, proxy: Proxy) -> None:
    children = proxy.children()

    proxy.signal(signal.SIGTERM)

    assert proxy.wait() == 0
    view = fleet.view("proxy-1")
    assert view is not None
    assert not view.live
    assert not any(child.is_running() for child in children)
    assert proxy.log.splitlines()[-1].endswith("proxy proxy-1 has ended in order")


def test_watcher_sees_titles_that_a_person_understands_and_no_secret(running: Fleet) -> None:
    with watched(running) as events:
        task_id = running.submit(SCAN, title="inventory.scan ds1")
        running.dispatch(task_id, SCAN, proxy="proxy-1")
        wait_until(lambda: any(event["type"] == "task-succeeded" for event in list(events)), "events")

    [received] = [event for event in events if event["type"] == "task-received"]
    assert received["name"] == "inventory.scan ds1"
    assert received["args"] == f"('{task_id}', 1)"
    [succeeded] = [event for event in events if event["type"] == "task-succeeded"]
    assert succeeded["result"] == "'0 VMs'"
    assert running.server.password not in repr(events)
