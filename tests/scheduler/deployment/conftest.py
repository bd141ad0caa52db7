"""Bare machines behind real SSH servers, a ledger, and the `scheduler` command that puts proxies on them."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scheduler.deployment import deploying
from scheduler.deployment.wheelhouse import Kind, Wheels, packed
from tests.scheduler.cli.conftest import Finished, Program, applied, configured, ledger, scheduler
from tests.simulators.bare_machine import BareMachine

__all__ = ["applied", "configured", "ledger", "scheduler"]

ROOT = Path(__file__).parents[3]
TOOLBOX = tuple({Path(sys.base_prefix), Path(sys.prefix), ROOT})
"""What machines see of this system where they are to run the tests' own installation."""

Releases = Callable[..., None]


@pytest.fixture
def new_machine(tmp_path: Path) -> Iterator[Callable[..., BareMachine]]:
    """Makes machines, which run until the test ends."""
    made: list[BareMachine] = []

    def make(*, first: str = "", toolbox: bool = False) -> BareMachine:
        machine = BareMachine(tmp_path / f"machine-{len(made)}", first=first, shown=TOOLBOX if toolbox else ())
        made.append(machine)
        return machine.__enter__()

    yield make
    for machine in made:
        machine.__exit__(None, None, None)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareMachine]:
    """One machine for the tests of a module that leave it as it was."""
    with BareMachine(tmp_path_factory.mktemp("machine")) as made:
        yield made


@pytest.fixture(scope="session")
def pip_wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """pip as machines get it."""
    found = packed(tmp_path_factory.getbasetemp().parent / "wheelhouse", this_kind())
    with tarfile.open(fileobj=io.BytesIO(found.archive)) as archive:
        member = next(one for one in archive.getmembers() if one.name.startswith("pip-"))
        wheel = archive.extractfile(member)
        assert wheel is not None
        return member.name, wheel.read()


@pytest.fixture
def light_releases(pip_wheel: tuple[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Releases:
    """Says which release is put on machines: one whose proxy-worker is the tests' own, or one that fails."""

    def release(number: int, *, fails: bool = False) -> None:
        body = "raise SystemExit('it does not work here')" if fails else _RUNS_THE_TESTS_OWN
        wheels = _light(number, body, pip_wheel)
        monkeypatch.setattr(deploying, "packed", lambda *_: wheels)

    release(1)
    return release


def this_kind() -> Kind:
    """The kind of machine that machines here are."""
    return Kind("x86_64", (3, 11, 2), (2, 36))


def add(scheduler: Program, machine: BareMachine, name: str, *words: str, user: str = "root") -> Finished:
    """`scheduler proxy add` of a machine, without questions."""
    login = ("--host", "127.0.0.1", "--port", str(machine.port), "--user", user, "--ssh-key", str(machine.key))
    pin = () if "--host-key" in words else ("--host-key", machine.fingerprint)
    return scheduler("proxy", "add", name, *login, *pin, *words, "--yes")


_RUNS_THE_TESTS_OWN = f"""
import os, sys
os.environ["PYTHONPATH"] = {str(ROOT)!r}
os.execv({sys.executable!r}, [{sys.executable!r}, "-c", "from proxy_worker.cli import main; main()", *sys.argv[1:]])
"""


def _light(number: int, body: str, pip_wheel: tuple[str, bytes]) -> Wheels:
    version = f"0.{number}"
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        info = f"proxyfleet-{version}.dist-info"
        archive.writestr("light.py", f"def main():\n    exec({body!r})\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: proxyfleet\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nproxy-worker = light:main\n")
        archive.writestr(f"{info}/RECORD", "")
    content = wheel.getvalue()
    lock = f"proxyfleet=={version} --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"
    members = {
        f"proxyfleet-{version}-py3-none-any.whl": content,
        "requirements.lock": lock.encode(),
        pip_wheel[0]: pip_wheel[1],
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return Wheels(f"{version}-light", out.getvalue())
