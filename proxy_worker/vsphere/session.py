"""Logins: one session, and the bounded number of them that a vCenter is asked to bear.

A session renews itself when vCenter says that it has expired, which it does in the middle of a long read. A
vCenter that is gone for a minute is waited for where the question may be asked again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from pyVmomi import vim, vmodl
from pyVmomi.SoapAdapter import SoapStubAdapter

from proxy_worker.contract.errors import CredentialError, SourceError
from proxy_worker.program.closing import Closing
from proxy_worker.vsphere.faults import FAULTS, UNREACHABLE, VcenterUnreachableError, translate, words_of
from proxy_worker.vsphere.trust import Trust, checked_connection

T = TypeVar("T")

API_VERSION: Final = "vim.version.version12"
"""vSphere 6.7: the oldest that is supported. Newer servers answer in its words, so no unknown types arrive."""
_RENEWALS: Final = 3
_KEPT_IDLE_S: Final = (
    20  # less than any server keeps a connection: one that it has closed fails what can't be repeated
)


class VcenterPasswordError(CredentialError):
    """vCenter refuses the user name or the password, or the account is locked or may not log in."""


class VcenterSecretError(CredentialError):
    """The file with a vCenter account's password is missing, unreadable, or empty."""


class SessionsBusyError(SourceError):
    """All sessions that this vCenter may be asked for are in use."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a vCenter that doesn't answer is waited for, and in which steps (seconds)."""

    total_s: float = 90.0
    first_s: float = 0.5
    longest_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A vCenter or ESXi host, and the account to use there."""

    name: str
    """As the fleet file calls it."""
    host: str
    user: str
    credential: str
    """Names the secret file `<credential>.password`."""
    port: int = 443
    trust: Trust = field(default_factory=Trust)
    max_sessions: int = 4
    timeout_s: float = 120.0
    """For one answer of the server."""
    patience: Patience = field(default_factory=Patience)


def read_password(endpoint: Endpoint, secrets_dir: Path) -> str:
    """The account's password, from its own file in the secrets directory; a last newline isn't part of it."""
    path = secrets_dir / f"{endpoint.credential}.password"
    try:
        password = path.read_text().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise VcenterSecretError(
            f"password of {endpoint.user} at vCenter {endpoint.name}",
            why=f"{path} can't be read: {error}",
            remedy="Put the password into that file, readable by this service alone.",
        ) from error
    if not password:
        raise VcenterSecretError(f"password of {endpoint.user} at vCenter {endpoint.name}", why=f"{path} is empty")
    return password


class Session(Closing):
    """One login. Several threads may use it; managed objects made from its stub outlive a renewal."""

    def __init__(self, endpoint: Endpoint, password: str) -> None:
        """Connect and log in; raises the named errors of this module, of `trust` and of `faults`.

        A vCenter that doesn't answer is waited for, as long as the endpoint's patience lasts.
        """
        self.endpoint = endpoint
        self._password = password
        self._renewal = threading.Lock()
        self._generation = 0
        self.stub = SoapStubAdapter(
            host=endpoint.host,
            port=endpoint.port,
            version=API_VERSION,
            sslContext=endpoint.trust.context(),
            httpConnectionTimeout=endpoint.timeout_s,
            connectionPoolTimeout=_KEPT_IDLE_S,
        )
        self.stub.scheme = checked_connection(endpoint.name, endpoint.trust)
        self._what = f"vCenter {endpoint.name} ({endpoint.host}:{endpoint.port})"
        self.content: Any  # vim.ServiceInstanceContent; what a server lacks is None
        self._log_in_patiently(time.monotonic() + endpoint.patience.total_s)

    def call(self, what: str, operation: Callable[[], T], *, repeatable: bool = False) -> T:
        """Do `operation`, which asks this vCenter something, and log in again if the session has expired.

        `what` names it in errors. A `repeatable` operation is done again, as a whole, when the connection breaks,
        for as long as the endpoint's patience lasts; any other might have been carried out, and is not.
        """
        patience = self.endpoint.patience
        deadline, pause = time.monotonic() + patience.total_s, patience.first_s
        renewals = 0
        while True:
            generation = self._generation
            try:
                return operation()
            except vim.fault.NotAuthenticated as fault:
                renewals += 1
                if renewals > _RENEWALS:
                    raise translate(what, fault) from fault
                self._renew(generation, what, deadline if repeatable else 0.0)
            except FAULTS as fault:
                raise translate(what, fault) from fault
            except UNREACHABLE as error:
                if not repeatable or time.monotonic() + pause > deadline:
                    raise translate(f"{what} at {self._what}", error) from error
                time.sleep(pause)
                pause = min(pause * 2, patience.longest_s)

    def close(self) -> None:
        """Log out, so that vCenter forgets the session at once; one that is gone is left alone. Idempotent."""
        with contextlib.suppress(*FAULTS, *UNREACHABLE, CredentialError):
            self.content.sessionManager.Logout()
        self.stub.DropConnections()

    def _renew(self, generation: int, what: str, deadline: float) -> None:
        with self._renewal:
            if generation != self._generation:
                return  # another thread has done it
            try:
                self._log_in_patiently(deadline)
            except VcenterUnreachableError as error:
                raise VcenterUnreachableError(what, why=error.why, remedy=error.remedy) from error

    def _log_in_patiently(self, deadline: float) -> None:
        patience = self.endpoint.patience
        pause = patience.first_s
        while True:
            try:
                self._log_in()
            except VcenterUnreachableError:
                if time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
                pause = min(pause * 2, patience.longest_s)
            else:
                return

    def _log_in(self) -> None:
        self.stub.SetSessionId(None)
        instance = vim.ServiceInstance("ServiceInstance", self.stub)
        try:
            self.content = instance.RetrieveContent()
            self.content.sessionManager.Login(self.endpoint.user, self._password)
        except (vim.fault.InvalidLogin, vim.fault.NoPermission) as fault:
            raise VcenterPasswordError(
                f"{self._what}: login of {self.endpoint.user}",
                why=words_of(fault),
                remedy=f"Correct the file {self.endpoint.credential}.password, or unlock the account.",
            ) from fault
        except vmodl.MethodFault as fault:
            raise translate(f"{self._what}: login of {self.endpoint.user}", fault) from fault
        except UNREACHABLE as error:
            raise translate(self._what, error) from error
        self._generation += 1


class Sessions(Closing):
    """At most `max_sessions` logins to one vCenter, lent to one borrower each and kept for the next."""

    def __init__(self, endpoint: Endpoint, password: str) -> None:
        self.endpoint = endpoint
        self._password = password
        self._free = threading.BoundedSemaphore(endpoint.max_sessions)
        self._lock = threading.Lock()
        self._idle: list[Session] = []
        self._closed = False

    @contextlib.contextmanager
    def borrow(self, timeout_s: float = 60.0) -> Iterator[Session]:
        """A session for this block alone; raises `SessionsBusyError` when none comes free within `timeout_s`."""
        if not self._free.acquire(timeout=timeout_s):
            raise SessionsBusyError(
                f"vCenter {self.endpoint.name}",
                why=f"all {self.endpoint.max_sessions} sessions are in use for {timeout_s:g} s",
                remedy="Raise `max_sessions`, or run fewer VMs at once.",
            )
        try:
            with self._lock:
                session = self._idle.pop() if self._idle else None
            session = session or Session(self.endpoint, self._password)
            try:
                yield session
            finally:
                self._put_back(session)
        finally:
            self._free.release()

    def close(self) -> None:
        """Log out of every idle session; those still lent log out when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def _put_back(self, session: Session) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(session)
                return
        session.close()
