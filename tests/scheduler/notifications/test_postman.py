"""The outbox: nothing is lost or told for nothing, and who doesn't answer holds up nobody."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from scheduler.notifications import outbox
from scheduler.notifications.outbox import GIVE_UP_AFTER_S, has_news
from scheduler.notifications.postman import Postman
from scheduler.planning.addressees import NotifyWhen, WebhookTarget
from scheduler.reports.run_report import RunReport, run_report
from scheduler.state.asking import ask_to_retry
from scheduler.state.models import Delivery, DeliveryState, Notification, Run, RunState
from scheduler.state.store import State
from tests.scheduler.notifications.conftest import NOW, Endpoint, end_run


class Clock:
    now = NOW + 100

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def postman(state: State, tmp_path: Path, clock: Clock) -> Postman:
    return Postman(state, tmp_path, clock=clock)


def declare(state: State, name: str, url: str, **keys: object) -> None:
    with state.write() as session:
        session.add(Notification(name=name, webhook=WebhookTarget(url=url), **keys))


def rounds(postman: Postman, count: int = 1) -> None:
    """Let the postman go round, and wait for those who are on their way."""
    for _ in range(count):
        for thread in postman.round():
            thread.join(120)


def deliveries(state: State) -> list[Delivery]:
    with state.read() as session:
        return list(session.query(Delivery).order_by(Delivery.created_at))


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ((RunState.SUCCEEDED, None), {"always"}),
        ((RunState.SUCCEEDED, "its snapshot stays"), {"always", "warning"}),
        ((RunState.CANCELLED, None), {"always", "warning"}),
        ((RunState.PARTLY_FAILED, None), {"always", "warning", "failure"}),
        ((RunState.FAILED, None), {"always", "warning", "failure"}),
    ],
)
def test_each_is_told_of_what_it_asked_for(
    state: State, postman: Postman, endpoint: Endpoint, ending: tuple[RunState, str | None], told: set[str]
) -> None:
    ended, warning = ending
    for when in NotifyWhen:
        declare(state, when.value, endpoint.url, when=when)
    declare(state, "others", endpoint.url, when=NotifyWhen.ALWAYS, jobs=("weekly*",))
    declare(state, "silent", endpoint.url, when=NotifyWhen.ALWAYS, enabled=False)
    end_run(state, ended=ended, warning=warning)

    rounds(postman, 2)

    assert {one.notification for one in deliveries(state)} == told
    assert {one.state for one in deliveries(state)} == {DeliveryState.DELIVERED}
    assert endpoint.requests.qsize() == len(told)


def test_a_server_that_is_away_gets_it_later_under_the_same_id(
    state: State, postman: Postman, clock: Clock, endpoint: Endpoint
) -> None:
    declare(state, "tickets", endpoint.url, when=NotifyWhen.ALWAYS)
    endpoint.status = 503
    end_run(state)
    rounds(postman)
    (waiting,) = deliveries(state)
    assert (waiting.state, waiting.tries, waiting.next_at) == (DeliveryState.WAITING, 1, clock.now + 10)
    assert "it answered 503" in (waiting.error or "")

    rounds(postman)
    assert endpoint.requests.qsize() == 1, "not before its time"

    endpoint.status = 200
    clock.now += 11
    rounds(postman)
    (told,) = deliveries(state)
    assert (told.state, told.tries, told.error) == (DeliveryState.DELIVERED, 2, None)
    ids = {endpoint.requests.get()[0]["X-Proxyfleet-Delivery"] for _ in range(2)}
    assert ids == {waiting.id}


def test_what_can_not_be_told_for_two_days_is_given_up(
    state: State, postman: Postman, clock: Clock, endpoint: Endpoint
) -> None:
    declare(state, "tickets", endpoint.url, when=NotifyWhen.ALWAYS)
    endpoint.status = 503
    end_run(state)
    rounds(postman)
    clock.now += GIVE_UP_AFTER_S + 1
    rounds(postman)
    assert [one.state for one in deliveries(state)] == [DeliveryState.GIVEN_UP]


def test_one_that_does_not_answer_holds_up_nobody(state: State, postman: Postman, endpoint: Endpoint) -> None:
    endpoint.hold = threading.Event()
    declare(state, "dead", endpoint.url, when=NotifyWhen.ALWAYS)
    end_run(state)
    (stuck,) = postman.round()
    assert endpoint.reached.wait(120)
    endpoint.hold, hold = None, endpoint.hold
    declare(state, "alive", endpoint.url, when=NotifyWhen.ALWAYS)
    end_run(state, "run-2")

    for thread in postman.round():
        if thread is not stuck:
            thread.join(120)

    assert endpoint.requests.qsize() == 1
    assert {one.notification for one in deliveries(state) if one.state is DeliveryState.DELIVERED} == {"alive"}
    hold.set()
    stuck.join(120)


def test_a_report_that_can_not_be_made_holds_up_nobody(
    state: State, postman: Postman, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_for_one(session: Session, run: Run) -> RunReport:
        if run.id == "run-1":
            raise KeyError(run.id)
        return run_report(session, run)

    monkeypatch.setattr(outbox, "run_report", fail_for_one)
    declare(state, "tickets", endpoint.url, when=NotifyWhen.ALWAYS)
    end_run(state)
    rounds(postman)
    declare(state, "chat", endpoint.url, when=NotifyWhen.ALWAYS)
    end_run(state, "run-2")
    rounds(postman)

    assert {(one.run_id, one.notification): one.state for one in deliveries(state)} == {
        ("run-1", "tickets"): DeliveryState.WAITING,
        ("run-2", "tickets"): DeliveryState.DELIVERED,
        ("run-2", "chat"): DeliveryState.DELIVERED,
    }
    assert deliveries(state)[0].error == "unexpected KeyError: the scheduler's log says more"


def test_a_round_that_fails_unforeseen_is_logged_and_followed_by_others(
    state: State,
    postman: Postman,
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks = itertools.count()

    def fail_at_first(session: Session) -> bool:
        if next(looks) == 0:
            raise KeyError("news")
        return has_news(session)

    monkeypatch.setattr(outbox, "has_news", fail_at_first)
    monkeypatch.setattr("scheduler.notifications.postman.LOOK_EVERY_S", 0.01)
    declare(state, "tickets", endpoint.url, when=NotifyWhen.ALWAYS)
    end_run(state)
    with postman:
        endpoint.requests.get(timeout=120)

    assert "KeyError: 'news'" in caplog.text


def test_what_was_told_but_not_recorded_is_told_again_after_a_crash(
    state: State, postman: Postman, endpoint: Endpoint, tmp_path: Path, clock: Clock
) -> None:
    """Killed between writing down and sending, or between sending and recording."""
    declare(state, "tickets", endpoint.url, when=NotifyWhen.ALWAYS)
    end_run(state)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Postman, "_tell", lambda *_: None)
        rounds(postman)

    rounds(Postman(state, tmp_path, clock=clock))

    assert [one.state for one in deliveries(state)] == [DeliveryState.DELIVERED]
    assert endpoint.requests.qsize() == 1


def test_the_end_of_a_retried_run_is_told_again(state: State, postman: Postman, endpoint: Endpoint) -> None:
    declare(state, "tickets", endpoint.url, when=NotifyWhen.FAILURE)
    end_run(state, ended=RunState.FAILED)
    rounds(postman)
    with state.write() as session:
        ask_to_retry(session, "run-1")
    rounds(postman)
    assert len(deliveries(state)) == 1
    with state.write() as session:
        session.get_one(Run, "run-1").state = RunState.FAILED
    rounds(postman)
    assert len(deliveries(state)) == 2


def test_a_notification_that_is_removed_tells_nothing_more(
    state: State, postman: Postman, clock: Clock, endpoint: Endpoint
) -> None:
    declare(state, "tickets", endpoint.url, when=NotifyWhen.ALWAYS)
    endpoint.status = 503
    end_run(state)
    rounds(postman)
    with state.write() as session:
        session.delete(session.get_one(Notification, "tickets"))
    clock.now += 3600
    rounds(postman)
    assert endpoint.requests.qsize() == 1
    assert deliveries(state) == []
