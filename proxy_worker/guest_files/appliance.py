"""libguestfs' appliance, run by its shell `guestfish`: commands go in, what they print comes out.

See guestfish(1). Disks are opened as raw, whatever they look like: with probing, a guest that writes a qcow2 header
to its disk could name any file of this machine as its backing file. They are read-only to the appliance.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from proxy_worker.guest_files.errors import ApplianceError, ApplianceMissingError, GuestReadError
from proxy_worker.guest_files.paths import shown

PROGRAM: Final = "guestfish"
_SLOW: Final = "force_tcg"
"""Emulated instead of by KVM, for machines whose KVM doesn't work."""
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-:=,+@%")
_ERROR: Final = re.compile(r"(\*stdin\*:\d+: )?(libguestfs: |guestfish: )?error: ")
_READ_BYTES: Final = 1 << 20
_ENDS_S: Final = 10.0


class ApplianceCommandError(GuestReadError):
    """The appliance refused a command."""

    @property
    def absent(self) -> bool:
        """Whether it is since there is no such file."""
        return self.why.endswith(("No such file or directory", "Not a directory"))


class Appliance:
    """A running appliance. One thread at a time may use it; `close` ends it."""

    def __init__(self, uris: Sequence[str], scratch: Path) -> None:
        """Start it with the disks at these NBD URIs; `scratch` takes what it writes.

        This takes seconds, without KVM up to a minute. Raises `ApplianceMissingError`, `ApplianceError`.
        """
        if shutil.which(PROGRAM) is None:
            raise ApplianceMissingError(
                "files of a guest can't be read",
                why=f"the command {PROGRAM} is not installed",
                remedy="Install it and a kernel, e.g. apt-get install guestfish libguestfs-xfs linux-image-amd64.",
            )
        self._uris, self._scratch = tuple(uris), scratch
        self._listening: _Collecting | None = None
        try:
            self._start(None)
        except (ApplianceError, ApplianceCommandError) as error:
            if not os.access("/dev/kvm", os.R_OK | os.W_OK):
                raise _not_started(error) from error
            try:
                self._start(_SLOW)
            except (ApplianceError, ApplianceCommandError) as again:
                raise _not_started(again) from again

    def run(self, *words: str | bytes) -> bytes:
        """What a command prints; raises `ApplianceCommandError`, or `ApplianceError` when the appliance ended."""
        return self.run_all([words])

    def run_all(self, commands: Sequence[Sequence[str | bytes]]) -> bytes:
        """The same for several; the first that fails is raised. What they print has to fit a pipe: 64 KiB."""
        mark = f"end-{secrets.token_hex(8)}"
        typed = [b" ".join([b"-" + _encoded(name), *map(_quoted, rest)]) for name, *rest in commands]
        typed.append(f"! echo; echo {mark}; echo {mark} >&2".encode())
        try:
            self._input.write(b"\n".join(typed) + b"\n")
            self._input.flush()
        except BrokenPipeError:
            pass  # what it said last says why
        self._listening = listening = _Collecting(self._errors, mark)
        listening.start()
        printed, whole = _until(self._output, mark)
        listening.join()
        lines = [shown(line) for line in listening.collected.split(b"\n") if line]
        if not whole:
            raise ApplianceError("libguestfs' appliance", why=_errors(lines) or "; ".join(lines) or "it has ended")
        if said := _errors(lines):
            raise ApplianceCommandError(shown(_encoded(commands[0][min(1, len(commands[0]) - 1)])), why=said)
        return printed.removesuffix(b"\n")

    @contextlib.contextmanager
    def stream(self, *words: str | bytes) -> Iterator[IO[bytes]]:
        """What a command writes to a file, its last argument, as a file to read; raises what `run` does."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            fifo = Path(folder, "stream")
            os.mkfifo(fifo)
            reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            writer = os.open(fifo, os.O_WRONLY)  # so that it doesn't end before the command has begun
            os.set_blocking(reader, True)
            command = _Running(self, (*words, os.fsencode(fifo)), writer)
            command.start()
            try:
                with os.fdopen(reader, "rb", _READ_BYTES) as file:
                    yield file
                    while file.read(_READ_BYTES):
                        pass  # what pads an archive after its end
            finally:
                command.join()
        if command.error is not None:
            raise command.error

    def close(self, *, at_once: bool = False) -> None:
        """End it; `at_once` also in the middle of something. Idempotent."""
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        if at_once:
            self._process.kill()
        try:
            self._process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its own watchdog ends the virtual machine then
            self._process.wait()
        if self._listening is not None:
            self._listening.join()
        self._output.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(at_once=kind is not None and not issubclass(kind, Exception))

    def _start(self, settings: str | None) -> None:
        """Start guestfish, which ends when its input does: nothing is left when this process is killed."""
        drives = [word for uri in self._uris for word in ("--format=raw", "-a", uri)]
        environment = {
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "LIBGUESTFS_BACKEND": "direct",
            "LIBGUESTFS_TMPDIR": str(self._scratch),
            "XDG_RUNTIME_DIR": str(self._scratch),  # where its sockets go
        }
        if settings is not None:
            environment["LIBGUESTFS_BACKEND_SETTINGS"] = settings
        self._process = subprocess.Popen(
            [PROGRAM, "--ro", *drives],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this program, which then ends it in order
        )
        if self._process.stdin is None or self._process.stdout is None or self._process.stderr is None:
            raise ApplianceError("libguestfs' appliance", why="it has no pipes")
        self._input, self._output, self._errors = self._process.stdin, self._process.stdout, self._process.stderr
        try:
            self.run("run")
        except BaseException as error:
            self.close(at_once=not isinstance(error, Exception))
            raise


class _Collecting(threading.Thread):
    """Reads what is said meanwhile."""

    def __init__(self, file: IO[bytes], mark: str) -> None:
        super().__init__(name="appliance-errors", daemon=True)
        self._file, self._mark = file, mark
        self.collected = b""

    def run(self) -> None:
        self.collected, _ = _until(self._file, self._mark)


class _Running(threading.Thread):
    """Runs a command whose output somebody else reads, and then lets that end."""

    def __init__(self, appliance: Appliance, words: Sequence[str | bytes], writer: int) -> None:
        super().__init__(name="appliance-stream", daemon=True)
        self._appliance, self._words, self._writer = appliance, words, writer
        self.error: GuestReadError | ApplianceError | None = None

    def run(self) -> None:
        try:
            self._appliance.run(*self._words)
        except (GuestReadError, ApplianceError) as error:
            self.error = error
        finally:
            os.close(self._writer)


def _not_started(error: ApplianceError | ApplianceCommandError) -> ApplianceError:
    return ApplianceError(
        "libguestfs' appliance doesn't start",
        why=error.why,
        remedy="`libguestfs-test-tool` says more; it needs a kernel in /boot that this user may read.",
    )


def _until(file: IO[bytes], mark: str) -> tuple[bytes, bool]:
    """What comes before the line of the mark, and whether that came."""
    lines: list[bytes] = []
    for line in file:
        if line == f"{mark}\n".encode():
            return b"".join(lines), True
        lines.append(line)
    return b"".join(lines), False


def _errors(lines: Sequence[str]) -> str:
    """The errors among what guestfish says, without its warnings and its advice to developers."""
    errors = [line.partition("error: ")[2] for line in lines if _ERROR.match(line)]
    return " / ".join(dict.fromkeys(errors))


def _quoted(word: str | bytes) -> bytes:
    """A word as guestfish reads it: everything unusual as \\xHH in double quotes."""
    return b'"%s"' % b"".join(bytes([byte]) if byte in _PLAIN else b"\\x%02x" % byte for byte in _encoded(word))


def _encoded(word: str | bytes) -> bytes:
    return os.fsencode(word) if isinstance(word, str) else word
