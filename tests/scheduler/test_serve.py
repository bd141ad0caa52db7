"""`scheduler serve` as a process: what it says when it can't, each with its exit code and without a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.demo.valkey import EmbeddedValkey

Serve = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def serve(tmp_path: Path, valkey: EmbeddedValkey) -> Serve:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "redis").write_text(valkey.password)

    def run(*, url: str = valkey.url, extra: str = "") -> subprocess.CompletedProcess[str]:
        file = tmp_path / "scheduler.toml"
        file.write_text(
            f'state_dir = "state"\nsecrets_dir = "secrets"\n{extra}\n[redis]\nurl = "{url}"\ncredential = "redis"\n'
        )
        command = [str(Path(sys.executable).with_name("scheduler")), "serve", "--config", str(file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


def _refused(done: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_redis_that_is_absent(serve: Serve) -> None:
    _refused(serve(url="redis://127.0.0.1:1/0"), 10, "ledger in Redis at redis://127.0.0.1:1/0: no answer")


def test_redis_that_refuses_the_password(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "redis").write_text("wrong")
    _refused(serve(), 10, "Redis refuses the password")


def test_a_secret_that_is_missing(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "redis").unlink()
    _refused(serve(), 6, "password of Redis in")


def test_a_key_that_nobody_knows(serve: Serve) -> None:
    _refused(serve(extra='colour = "blue"'), 3, "unknown key `colour`")


def test_a_database_file_that_is_none(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "scheduler.db").write_bytes(b"no database " * 500)
    _refused(serve(), 1, "file is not a database")


def test_a_database_url_that_names_nothing(serve: Serve) -> None:
    _refused(serve(extra='database_url = "nosuch://x"'), 3, "database_url")


_LEADERSHIP_LOST = """
import sys, threading
from scheduler.cli.serve import _BeginAnew

class Proxy:
    def tell_to_end(self):
        print("the proxy is told to end", flush=True)

stop = threading.Event()
if sys.argv[1] == "stopping":
    stop.set()
sys.orig_argv = [sys.executable, "-c", "print('stands by')"]
anew = _BeginAnew(stop)
anew.local = Proxy()
lease = threading.Thread(target=anew)  # where leadership is lost
lease.start()
lease.join()
print("goes on as if it led")
"""


@pytest.mark.parametrize(("doing", "then"), [("serving", "stands by\n"), ("stopping", "")])
def test_one_that_loses_its_leadership_stands_by_unless_it_was_told_to_stop(doing: str, then: str) -> None:
    command = [sys.executable, "-c", _LEADERSHIP_LOST, doing]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, f"the proxy is told to end\n{then}"), done.stderr
