"""The proxy that `scheduler serve` runs on its own machine: a supervised `proxy-worker run` subprocess."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import tomlkit

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.program.settings import read_secret
from scheduler.configuration import SchedulerConfiguration

logger = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 20.0
"""How long its disks may go on at the end of `serve`, before they are handed back."""
_KILL_AFTER_S = DRAIN_TIMEOUT_S + 15.0
_POLL_S = 0.05
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_HEALTHY_AFTER_S = 30.0


class LocalProxyError(ProxyfleetError):
    """The server's own proxy can't be started."""


class LocalProxy:
    """Keeps one `proxy-worker run` alive until it is stopped. `watch` and `stop` belong to one thread.

    Making one raises `LocalProxyError` when the command is not installed.
    """

    def __init__(self, configuration: SchedulerConfiguration, public_key: str) -> None:
        self._folder = configuration.state_dir / "local-proxy"
        self._path = self._folder / "proxy.toml"
        self._text = proxy_toml(configuration, self._folder, public_key)
        self._program = proxy_worker()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at = 0.0
        self._pause_s = _FIRST_PAUSE_S

    def watch(self) -> None:
        """Start it, or start it again when it has ended; after repeated failures less and less often."""
        now = time.monotonic()
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            if now - self._started_at > _HEALTHY_AFTER_S:
                self._pause_s = _FIRST_PAUSE_S
            _end_group(self._process.pid)  # its children would hold what the next life needs
            self._process = None
            self._rest(f"ended with code {code}")
        if now >= self._start_at:
            try:
                self._start()
            except OSError as error:
                self._rest(f"could not be started from {self._folder}: {error.strerror}")

    def stop(self, hurry: threading.Event) -> None:
        """End it: disks may finish or are handed back, at once when `hurry` is set; no process is left."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        deadline = time.monotonic() + _KILL_AFTER_S
        hurried = False
        while process.poll() is None and time.monotonic() < deadline:
            if hurry.wait(_POLL_S) and not hurried:
                hurried = True
                process.terminate()
            elif hurried:
                time.sleep(_POLL_S)
        if process.poll() is None:
            logger.warning("the local proxy did not end in %.0f s and is killed", _KILL_AFTER_S)
        _end_group(process.pid)
        process.wait()

    def tell_to_end(self) -> None:
        """Have it finish or hand back its disks, without waiting; may be called by any thread."""
        process = self._process
        if process is not None:
            process.terminate()

    def _rest(self, what_happened: str) -> None:
        logger.warning("the local proxy %s; it is started again in %.0f s", what_happened, self._pause_s)
        self._start_at = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path.write_text(self._text)
        self._started_at = time.monotonic()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PROXY_WORKER_")}
        # A group of its own: Ctrl-C in the terminal is for the scheduler, which then ends it in order.
        self._process = subprocess.Popen(
            [*_tied(), str(self._program), "run", "--config", str(self._path)],
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )


def _end_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def proxy_toml(configuration: SchedulerConfiguration, folder: Path, public_key: str) -> str:
    """The proxy.toml of the local proxy, whose state is kept in `folder`."""
    local = configuration.local_proxy
    document = tomlkit.document()
    document.add(
        tomlkit.comment("Written by `scheduler serve` from [local_proxy] of scheduler.toml at every start.")
    )
    document["name"] = local.name
    document["site"] = local.site
    document["max_concurrent_tasks"] = local.max_concurrent_tasks
    document["state_dir"] = str(folder)
    document["secrets_dir"] = str(configuration.secrets_dir)
    document["scheduler_public_keys"] = [public_key]
    document["drain_timeout_s"] = DRAIN_TIMEOUT_S
    document["log_format"] = configuration.log_format.value
    if local.transport_modes is not None:
        document["transport_modes"] = [mode.value for mode in local.transport_modes]
    document["redis"] = configuration.redis.model_dump(mode="json", exclude_none=True)
    document["datastores"] = {
        name: store.model_dump(mode="json", exclude_none=True) for name, store in local.datastores.items()
    }
    if local.instant_restore is not None:
        document["instant_restore"] = local.instant_restore.model_dump(mode="json")
    return tomlkit.dumps(document)


def access_key(path: Path) -> dict[str, str]:
    """The key to an object store in `<credential>.s3`, as `proxy-worker` finds it in its environment.

    Its id and its secret are a line each; nothing where there is no such file. Raises `SecretError`.
    """
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return dict(zip(names, read_secret(path, "access key").splitlines(), strict=False)) if path.exists() else {}


def proxy_worker() -> Path:
    """The command `proxy-worker`; raises `LocalProxyError` when it isn't installed."""
    beside = Path(sys.executable).with_name("proxy-worker")
    found = beside if beside.exists() else shutil.which("proxy-worker")
    if found is None:
        raise LocalProxyError(
            "local proxy",
            why="the command proxy-worker is not installed beside the scheduler",
            remedy="Install it, or serve with --no-local-proxy.",
        )
    return Path(found)


def _tied() -> list[str]:
    """A prefix that ends the proxy when the scheduler is killed and can't do it; empty where there is none."""
    setpriv = shutil.which("setpriv")
    # The kernel ties it to the thread that starts it, which therefore has to live as long as the process.
    main_thread = threading.current_thread() is threading.main_thread()
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv is not None and main_thread else []
