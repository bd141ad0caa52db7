"""A bare machine behind a real sshd: the programs of this system and nothing else, with processes of its own.

It shares the network with the tests, so that what listens on 127.0.0.1 is reached from there. Whatever runs in it
ends with it. Needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ops.demo.valkey import free_port

INIT: Final = Path(__file__).with_name("bare_machine_init.py")
PASSWORD: Final = "open sesame"
USER: Final = "keeper"
"""Somebody who may log in and not become root."""
_FOLDERS: Final = ("etc/ssh", "home", "mnt", "opt", "root/.ssh", "run/sshd", "srv", "tmp", "var/lib", "var/log")
_SYSTEM_FILES: Final = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "nsswitch.conf", "login.defs")
_ACCOUNTS: Final = f"""root:x:0:0:root:/root:/bin/sh
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
{USER}:x:1000:1000::/home/{USER}:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUPS: Final = f"root:x:0:\n{USER}:x:1000:\nnogroup:x:65534:\n"


class BareMachine:
    """Made when its `with` block begins, gone when it ends."""

    def __init__(self, folder: Path, *, shown: tuple[Path, ...] = (), first: str = "") -> None:
        """`shown` are folders of this system that it sees too; `first` goes before its sshd's configuration."""
        assert os.geteuid() == 0, "a bare machine needs root: run these tests as root, or in a privileged container"
        self.folder, self.root, self.port = folder, folder / "root", free_port()
        self._shown, self._first = shown, first
        self.key = folder / "login"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def fingerprint(self) -> str:
        """Of its SSH host key."""
        said = subprocess.run(
            ["ssh-keygen", "-lf", self.root / "etc/ssh/host_key.pub"], capture_output=True, text=True, check=True
        )
        return said.stdout.split()[1]

    def new_host_key(self, kind: str = "ed25519") -> None:
        """Give it another host key, as a machine that was installed anew has."""
        path = self.root / "etc/ssh/host_key"
        path.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)

    def processes(self) -> list[tuple[int, str]]:
        """What runs in it: user and command line, sshd and what it does left out."""
        assert self._process is not None
        mine = Path(f"/proc/{self._init()}/ns/pid").readlink()
        found = []
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and (process / "ns/pid").readlink() == mine:
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    found.append((process.stat().st_uid, command))
            except OSError:
                continue
        return [one for one in found if "sshd" not in one[1] and "bare_machine_init" not in one[1]]

    def start(self) -> Self:
        """Let it run; what it had before is still there."""
        log = (self.folder / "sshd.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, INIT, self.root, "/etc/ssh/sshd_config", *map(str, self._shown)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "sshd.log").read_text()
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """End it, with all that runs in it."""
        if self._process is not None:
            if self._process.poll() is None:
                os.kill(self._init(), signal.SIGKILL)
            self._process.wait(120)
            self._process = None

    def __enter__(self) -> Self:
        self._lay_out()
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _lay_out(self) -> None:
        for name in _FOLDERS:
            (self.root / name).mkdir(parents=True)
        (self.root / "tmp").chmod(0o1777)
        etc = self.root / "etc"
        for name in _SYSTEM_FILES:
            source = Path("/etc") / name
            if source.is_dir():
                shutil.copytree(source, etc / name, symlinks=True)
            elif source.exists():
                shutil.copy(source, etc / name)
        (etc / "os-release").symlink_to("../usr/lib/os-release")
        (etc / "passwd").write_text(_ACCOUNTS)
        (etc / "group").write_text(_GROUPS)
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True
        ).stdout.strip()
        (etc / "shadow").write_text(f"root:{hashed}:20000::::::\n{USER}:{hashed}:20000::::::\n")
        (etc / "shadow").chmod(0o600)
        self.new_host_key()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        home = self.root / "home" / USER
        for place, user in ((self.root / "root", 0), (home, 1000)):
            (place / ".ssh").mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copy(self.key.with_suffix(".pub"), place / ".ssh/authorized_keys")
            for path in (place, place / ".ssh", place / ".ssh/authorized_keys"):
                os.chown(path, user, user)
        (etc / "ssh/sshd_config").write_text(
            f"{self._first}\nPort {self.port}\nListenAddress 127.0.0.1\nHostKey /etc/ssh/host_key\nUsePAM no\n"
            "PermitRootLogin yes\nPasswordAuthentication yes\nPidFile none\n"
        )

    def _init(self) -> int:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0])

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False
