"""A machine over SSH: its host key pinned by fingerprint, commands run with input and output.

Calls wait; underneath runs asyncssh. Nothing is taken from `known_hosts`: the fleet keeps its own pins.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncssh

from proxy_worker.program.closing import Closing
from scheduler.deployment.errors import (
    HostKeyChangedError,
    HostKeyNotPinnedError,
    ServerUnreachableError,
    SshLoginError,
    SshSecretError,
)
from scheduler.deployment.server import ProxyServer

CONNECT_TIMEOUT_S: Final = 20.0
_KINDS_OF_KEYS: Final = (
    (),
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256"),
)
"""The client's own order first. A machine has a key of each kind, and any of them may be the one that is pinned."""


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: bytes
    err: str


class Machine(Closing):
    """An open connection; leaving the `with` block closes it."""

    def __init__(self, server: ProxyServer, secrets_dir: Path) -> None:
        """Connect and log in.

        Raises `ServerUnreachableError`, `HostKeyChangedError`, `HostKeyNotPinnedError`, `SshLoginError`,
        `SshSecretError`.
        """
        self.server = server
        self.fingerprint = ""
        """Of the host key that was shown."""
        self._runner = asyncio.Runner()
        try:
            self._connection = self._connect(_login(server, secrets_dir))
        except BaseException:
            self._runner.close()
            raise

    @property
    def banner(self) -> str:
        """What its SSH server calls itself, e.g. `SSH-2.0-OpenSSH_9.2p1 Debian-2`."""
        return str(self._connection.get_extra_info("server_version", ""))

    def run(self, *words: str, given: bytes = b"", timeout_s: float = 60.0) -> Done:
        """Run a command with `given` as its input. Raises `ServerUnreachableError` when the connection breaks."""
        try:
            done = self._runner.run(self._run(shlex.join(words), given, timeout_s))
        except TimeoutError as error:
            raise self._unreachable(f"`{words[0]}` there has not ended within {timeout_s:.0f} s") from error
        except (OSError, asyncssh.Error) as error:
            raise self._unreachable(_words(error) or type(error).__name__) from error
        code = done.returncode if done.returncode is not None else 255
        return Done(code, _bytes(done.stdout), _bytes(done.stderr).decode(errors="replace").strip())

    def close(self) -> None:
        """Hang up."""
        self._connection.close()
        self._runner.run(self._connection.wait_closed())
        self._runner.close()

    async def _run(self, command: str, given: bytes, timeout_s: float) -> asyncssh.SSHCompletedProcess:
        async with asyncio.timeout(timeout_s):
            process = await self._connection.create_process(command, encoding=None)
            with contextlib.suppress(BrokenPipeError):  # it ended before it read all that it was given
                process.stdin.write(given)
                process.stdin.write_eof()
            return await process.wait()

    def _connect(self, login: dict[str, Any]) -> asyncssh.SSHClientConnection:
        refused: HostKeyChangedError | None = None
        for kinds in _KINDS_OF_KEYS:
            try:
                return self._runner.run(self._once({**login, "server_host_key_algs": list(kinds) or ()}))
            except HostKeyChangedError as error:
                refused = refused or error
            except asyncssh.PermissionDenied as error:
                raise self._not_let_in(str(error)) from error
            except (TimeoutError, OSError, asyncssh.Error) as error:
                if refused is None:  # else it has no key of this kind, and hung up
                    raise self._unreachable(_words(error) or "it doesn't answer") from error
        raise refused or self._unreachable("it shows no host key of a kind that is known here")

    async def _once(self, login: dict[str, Any]) -> asyncssh.SSHClientConnection:
        server, watch = self.server, _KeyWatch(self._right)
        try:
            return await asyncio.wait_for(
                asyncssh.connect(
                    server.host,
                    server.port,
                    username=server.user,
                    known_hosts=([], [], []),
                    client_factory=lambda: watch,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    login_timeout=CONNECT_TIMEOUT_S,
                    keepalive_interval=15,
                    **login,
                ),
                2 * CONNECT_TIMEOUT_S,
            )
        except asyncssh.HostKeyNotVerifiable:
            if server.host_key is None:
                raise HostKeyNotPinnedError(
                    f"host key of {server.address}",
                    why=f"it shows {self.fingerprint}, which nobody has confirmed",
                    remedy="Compare that with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the machine, "
                    f"then give --host-key {self.fingerprint}.",
                ) from None
            raise HostKeyChangedError(
                f"host key of {server.address}",
                why=f"it is pinned as {server.host_key}, and the machine shows {self.fingerprint}",
                remedy="If it was installed anew, compare the new one with `ssh-keygen -lf` on the machine and pin "
                "it with --host-key; if not, something else answers at that address: nothing was sent to it.",
            ) from None

    def _right(self, fingerprint: str) -> bool:
        self.fingerprint = fingerprint
        return fingerprint == self.server.host_key

    def _unreachable(self, why: str) -> ServerUnreachableError:
        return _unreachable(self.server, why)

    def _not_let_in(self, why: str) -> SshLoginError:
        credential = self.server.credential
        how = f"the secret {credential!r}" if credential else "the SSH agent and your own keys"
        return SshLoginError(
            f"login of {self.server.user} at {self.server.address}",
            why=f"it was refused with {how}: {why}",
            remedy="Put the public key into ~/.ssh/authorized_keys of that user there, or name another with "
            "--ssh-credential.",
        )


class _KeyWatch(asyncssh.SSHClient):
    """Asks about the host key that is shown."""

    def __init__(self, right: Callable[[str], bool]) -> None:
        self._right = right

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        """Whether it is the right one; the signature is asyncssh's."""
        return self._right(key.get_fingerprint())


def shown_fingerprint(server: ProxyServer) -> str:
    """Of the host key that a machine shows, without logging in; raises `ServerUnreachableError`."""

    async def ask() -> asyncssh.SSHKey | None:
        return await asyncio.wait_for(asyncssh.get_server_host_key(server.host, server.port), CONNECT_TIMEOUT_S)

    try:
        key = asyncio.run(ask())
    except (TimeoutError, OSError, asyncssh.Error) as error:
        raise _unreachable(server, _words(error) or "it doesn't answer") from error
    if key is None:
        raise _unreachable(server, "it shows no host key")
    return key.get_fingerprint()


def _words(error: Exception) -> str:
    """What the system says, without its number."""
    return getattr(error, "strerror", None) or str(error)


def _unreachable(server: ProxyServer, why: str) -> ServerUnreachableError:
    return ServerUnreachableError(
        f"server {server.address}",
        why=why,
        remedy="Check that it is up, that `sshd` listens there, and that this machine may connect to it.",
    )


def _login(server: ProxyServer, secrets_dir: Path) -> dict[str, Any]:
    """What asyncssh is told to log in with; raises `SshSecretError`."""
    if server.credential is None:
        return {}
    key, password, passphrase = (
        secrets_dir / f"{server.credential}.ssh-{kind}" for kind in ("key", "password", "passphrase")
    )
    try:
        if key.exists():
            phrase = passphrase.read_text().strip() if passphrase.exists() else None
            return {"client_keys": [asyncssh.read_private_key(key, phrase)], "agent_path": None}
        return {"password": password.read_text().strip(), "client_keys": None, "agent_path": None}
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise SshSecretError(
            f"secret {server.credential!r} for {server.user} at {server.address}",
            why=str(error),
            remedy=f"Put a private key into {key}, or a password into {password}, for your eyes only (chmod 600).",
        ) from error


def _bytes(output: Any) -> bytes:
    return output if isinstance(output, bytes) else b""
