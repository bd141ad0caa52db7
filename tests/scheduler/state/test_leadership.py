"""Several schedulers on one PostgreSQL: one leads at a time, and who doesn't any more writes nothing."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select, update

from scheduler.state.access import DatabaseAccess
from scheduler.state.errors import (
    LeadershipLostError,
    StateFullError,
    StatePasswordError,
    StateUnreachableError,
    StateUrlError,
)
from scheduler.state.leadership import Leadership
from scheduler.state.lock import servers_of
from scheduler.state.models import Site
from scheduler.state.serving import SchedulerProcess, Servers
from scheduler.state.store import State, open_state, reach_state
from tests.postgresql_server import PASSWORD, PostgresqlServer
from tests.system.live_fleet import wait_until

NEVER = threading.Event()
LEASE_S = 5.0
"""Long enough for some renewals before a leader has to give up."""
Stand = Callable[[str], Leadership]


@pytest.fixture
def lost() -> list[str]:
    """Who has been told to stop."""
    return []


@pytest.fixture
def stand(shared_database: DatabaseAccess, lost: list[str]) -> Iterator[Stand]:
    """Makes schedulers."""
    made: list[Leadership] = []

    def make(name: str) -> Leadership:
        made.append(Leadership(shared_database, lambda: lost.append(name), name=name, lease_s=LEASE_S))
        return made[-1]

    yield make
    for one in made:
        one.resign()


def _opened(access: DatabaseAccess, leadership: Leadership) -> State:
    state = open_state(access)
    state.guard = leadership.guard
    return state


def _write(state: State, name: str) -> None:
    with state.write() as session:
        session.add(Site(name=name))


def _freeze(leadership: Leadership, state: State) -> None:
    """Have it be unseen for longer than a lease, and not notice, as a process does that is frozen in a write."""
    leadership._renew = lambda: True  # type: ignore[method-assign] # what a frozen process can't do
    leadership._good_until = float("inf")
    with state.engine.connect().execution_options(beside_writers=True) as connection:
        connection.execute(update(SchedulerProcess).values(seen_at=1.0))
        connection.commit()


def test_the_first_leads_and_the_second_takes_over_when_it_resigns(
    shared_database: DatabaseAccess, stand: Stand
) -> None:
    first, second = stand("first"), stand("second")
    assert first.wait_for_it(NEVER)
    waiting = threading.Thread(target=second.wait_for_it, args=(NEVER,))
    waiting.start()
    state = open_state(shared_database)
    wait_until(lambda: servers_of(state) == Servers(True, "first", ("second",)), "the second to stand by")

    first.resign()
    waiting.join(120)

    assert servers_of(state) == Servers(True, "second")
    assert (first.term, second.term) == (1, 2)


def test_a_scheduler_that_is_told_to_end_while_it_stands_by_ends(stand: Stand) -> None:
    stop = threading.Event()
    assert stand("first").wait_for_it(NEVER)
    stop.set()
    assert not stand("second").wait_for_it(stop)


def test_a_leader_that_was_frozen_writes_nothing_once_another_leads(
    shared_database: DatabaseAccess, stand: Stand, lost: list[str]
) -> None:
    first, second = stand("first"), stand("second")
    assert first.wait_for_it(NEVER)
    state = _opened(shared_database, first)
    _write(state, "before")
    _freeze(first, state)
    assert second.wait_for_it(NEVER)

    with pytest.raises(LeadershipLostError, match="doesn't lead any more"):
        _write(state, "after")

    assert lost == ["first"]
    _write(_opened(shared_database, second), "successor")
    with state.read() as session:
        assert set(session.scalars(select(Site.name))) == {"before", "successor"}


def test_nobody_takes_over_in_the_middle_of_a_leaders_transaction(
    shared_database: DatabaseAccess, stand: Stand
) -> None:
    first, second = stand("first"), stand("second")
    assert first.wait_for_it(NEVER)
    state = _opened(shared_database, first)
    with state.write() as session:
        _freeze(first, state)
        session.add(Site(name="written"))
        session.flush()
        threading.Timer(1.5, (enough := threading.Event()).set).start()
        assert not second.wait_for_it(enough)
    with state.read() as session:
        assert session.get(Site, "written") is not None


def test_a_leader_that_cannot_reach_the_server_gives_up_before_another_can_follow(
    postgresql: PostgresqlServer, shared_database: DatabaseAccess, stand: Stand, lost: list[str]
) -> None:
    assert stand("first").wait_for_it(NEVER)
    postgresql.stop(signal.SIGINT)
    try:
        wait_until(lambda: lost == ["first"], "the leader to give up")
    finally:
        postgresql.start()
    assert stand("second").wait_for_it(NEVER)


def _set_read_only(access: DatabaseAccess, value: str) -> None:
    """Have the server refuse to write, as one does that became a replica, or accept it again."""
    state = reach_state(access)
    with state.engine.connect().execution_options(beside_writers=True) as connection:
        connection.exec_driver_sql("SET TRANSACTION READ WRITE")
        name = connection.exec_driver_sql("SELECT current_database()").scalar()
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")
        connection.commit()
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    state.close()


def test_a_leader_whose_server_became_a_replica_gives_up_and_the_next_waits_for_the_primary(
    shared_database: DatabaseAccess, stand: Stand, lost: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert stand("first").wait_for_it(NEVER)
    _set_read_only(shared_database, "on")
    wait_until(lambda: lost == ["first"], "the leader to give up")
    assert "it is a replica, or read-only" in caplog.text
    caplog.clear()
    waiting = threading.Thread(target=stand("second").wait_for_it, args=(NEVER,))
    waiting.start()
    wait_until(lambda: "it is a replica, or read-only" in caplog.text, "the second to stand by")
    _set_read_only(shared_database, "off")
    waiting.join(120)
    state = open_state(shared_database)
    assert servers_of(state) == Servers(True, "second")
    state.close()


def test_a_server_that_falls_silent_or_hangs_up_counts_as_away(
    postgresql: PostgresqlServer, shared_database: DatabaseAccess
) -> None:
    open_state(shared_database, migrate=True).close()
    with socket.create_server(("127.0.0.1", 0)) as server:
        middle = Middle(server, postgresql.port)
        url = shared_database.url.replace(f":{postgresql.port}/", f":{server.getsockname()[1]}/")
        state = reach_state(DatabaseAccess(url, PASSWORD), socket_timeout_s=1.0)
        with state.read() as session:
            assert session.get(Site, "primary") is None
        for trouble in ("silent", "hung up"):
            middle.trouble = trouble
            for _ in range(2):
                with pytest.raises(StateUnreachableError), state.read() as session:
                    session.get(Site, "primary")
            middle.trouble = ""
            with state.read() as session:
                assert session.get(Site, "primary") is None
        state.close()


def test_tls_is_asked_for_without_an_authority_too() -> None:
    asked: list[bytes] = []

    def answer() -> None:
        near, _ = server.accept()
        with near:
            asked.append(near.recv(8))

    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=answer)
        answering.start()
        state = reach_state(f"postgresql+pg8000://somebody@127.0.0.1:{server.getsockname()[1]}/fleet")
        with pytest.raises(StateUnreachableError), state.read() as session:
            session.get(Site, "primary")
        answering.join(120)
        state.close()
    assert asked == [struct.pack("!ii", 8, 80_877_103)], "this is PostgreSQL's SSLRequest"


class Middle:
    """Stands between the scheduler and PostgreSQL, and lets nothing through when told so."""

    def __init__(self, server: socket.socket, port: int) -> None:
        self.trouble = ""
        self._server, self._port = server, port
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                if self.trouble == "hung up":
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._port))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self.trouble == "hung up":
                    break
                if not self.trouble:
                    target.sendall(data)
        for end in (source, target):
            end.close()


def test_what_is_wrong_with_the_server_is_named_and_the_password_is_not(
    postgresql: PostgresqlServer, shared_database: DatabaseAccess
) -> None:
    url = shared_database.url
    wrong = (
        (DatabaseAccess(url, "planted-wrong-password"), StatePasswordError, "refuses the user or the password"),
        (DatabaseAccess(f"{url}0", PASSWORD), StateUrlError, "there is no such database"),
        (
            DatabaseAccess(url.replace(str(postgresql.port), "1"), PASSWORD),
            StateUnreachableError,
            "Check that PostgreSQL runs there",
        ),
    )
    for access, kind, says in wrong:
        with pytest.raises(kind, match=says) as caught:
            open_state(access)
        assert "planted" not in f"{caught.value}{access}"


def test_a_full_database_is_named(shared_database: DatabaseAccess) -> None:
    state = open_state(shared_database, migrate=True)
    with state.engine.connect().execution_options(immediate=True) as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
        )
        connection.exec_driver_sql("CREATE TRIGGER no_room BEFORE INSERT ON sites EXECUTE FUNCTION no_room()")
        connection.commit()
    with pytest.raises(StateFullError, match=r"its file system is full \(could not extend file\)"):
        _write(state, "one more")
