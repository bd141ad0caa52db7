"""A database with runs that have ended, a server that gets webhooks, a server that takes mail."""

from __future__ import annotations

import queue
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from ops.demo.valkey import free_port
from proxy_worker.contract.names import CompressionLevel
from scheduler.reports.run_report import RunReport, run_report
from scheduler.state.models import Priority, Run, RunState, RunTrigger, VmRun, VmRunState
from scheduler.state.store import State, open_state

NOW = 1_795_000_000.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'scheduler.db'}", migrate=True)
    yield opened
    opened.close()


def end_run(
    state: State, name: str = "run-1", *, ended: RunState = RunState.SUCCEEDED, warning: str | None = None
) -> str:
    """A run of one VM that has ended so."""
    failed = ended is RunState.FAILED
    with state.write() as session:
        session.add(
            Run(
                id=name,
                job="nightly",
                trigger=RunTrigger.SCHEDULE,
                state=ended,
                reason="no VM was backed up" if failed else None,
                created_at=NOW,
                started_at=NOW,
                ended_at=NOW + 63,
                repository="main",
                level=CompressionLevel.OPTIMAL,
                transport_mode="automatic",
                failover_to_network=True,
                priority=Priority.REGULAR,
                retry_count=0,
                retry_wait_seconds=0,
                vms=("*",),
            )
        )
        session.add(
            VmRun(
                id=f"{name}.1",
                run_id=name,
                vm_id="id-web01",
                name="web01 <b>",
                state=VmRunState.FAILED if failed else VmRunState.SUCCEEDED,
                reason="the disk is gone" if failed else None,
                warning=warning,
                repository_run="point-1",
                started_at=NOW,
                ended_at=NOW + 63,
            )
        )


@pytest.fixture
def report(state: State) -> RunReport:
    end_run(state)
    with state.read() as session:
        return run_report(session, session.get_one(Run, "run-1"))


@dataclass
class Endpoint:
    """A server that gets webhooks."""

    url: str
    requests: queue.Queue[tuple[dict[str, str], bytes]] = field(default_factory=queue.Queue)
    status: int = 204
    hold: threading.Event | None = None
    """While it isn't set, nobody gets an answer."""
    reached: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hold = made.hold
            made.reached.set()
            if hold is not None:
                hold.wait(120)
            made.requests.put((dict(self.headers), body))
            self.send_response(made.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Endpoint(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    if made.hold is not None:
        made.hold.set()
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class MailServer:
    """A real SMTP server that keeps what it takes."""

    port: int
    mails: queue.Queue[EmailMessage] = field(default_factory=queue.Queue)
    logins: list[bytes] = field(default_factory=list)

    async def handle_RCPT(self, *call: Any) -> str:  # noqa: N802 - aiosmtpd's name
        _, _, envelope, address, _ = call
        if address.startswith("nobody@"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, *call: Any) -> str:  # noqa: N802 - as above
        _, _, envelope = call
        mail = message_from_bytes(envelope.content, policy=default)
        assert isinstance(mail, EmailMessage)
        self.mails.put(mail)
        return "250 OK"

    def authenticate(self, *call: Any) -> AuthResult:
        login: LoginPassword = call[-1]
        self.logins.append(login.login)
        return AuthResult(success=login.password == b"a long password", handled=False)


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None) -> Iterator[MailServer]:
    """With `tls`, one that takes nothing before STARTTLS and a login."""
    made = MailServer(free_port())
    strict = {"tls_context": tls, "require_starttls": True, "auth_required": True} if tls else {}
    controller = Controller(made, hostname="127.0.0.1", port=made.port, authenticator=made.authenticate, **strict)
    controller.start()
    try:
        yield made
    finally:
        controller.stop()
