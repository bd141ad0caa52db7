"""A live fleet of which every part can be hurt alone: wires, clocks, views of the repository, single disks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil
from sqlalchemy import select

from ops.demo.layout import ProxyPlace
from ops.demo.machines import MIB, Disk, Machine, flat_path, make_machines
from proxy_worker.contract.disks import DiskRestore
from proxy_worker.contract.subjects import RepositoryReference, VmIdentity
from proxy_worker.ledger import FleetView, Ledger, TaskState, TaskView
from proxy_worker.mover.control import Unattended
from proxy_worker.mover.restore import restore_disk
from proxy_worker.repository.credentials import load_credential
from proxy_worker.repository.repository import Repository, open_store
from scheduler.state.asking import ask_for_run
from scheduler.state.models import DiskTask, Run, RunState
from scheduler.state.store import State, open_state
from tests.simulators.loop_devices import run as run_as_root
from tests.surviving import stand_in
from tests.surviving.relay import Relay, Wire
from tests.system.live_fleet import SCHEDULER, LiveFleet, wait_until

REPOSITORY_ROOT: Final = Path(__file__).parents[2]
SERVE_DISK: Final = """#!/bin/sh
# Serves the disk $2 at the socket $1; one that is poisoned kills the process that asked for it.
[ -e "$2.poison" ] && kill -9 $PPID
exec nbdkit --foreground --unix "$1" --readonly --filter=error --filter=rate file "$2" rate={bits}M burstiness=0.1 \
    error-pread=EIO error-pread-rate=100% error-file="$2.broken"
"""


class HurtFleet(LiveFleet):
    """Every process reaches Redis through a relay of its own, and each proxy sees the repository in its own way."""

    def __init__(
        self,
        state: Path,
        machines: Sequence[Machine],
        proxies: Sequence[str],
        jobs: str,
        *,
        nbd_mib_s: int,
        hurried: bool = False,
        cap: int | None = None,
        repository_mib: int = 256,
    ) -> None:
        """`hurried` makes leases last seconds instead of what is shipped; `cap` limits tasks at the repository."""
        super().__init__(state, [ProxyPlace(name, "primary", "ds") for name in proxies], jobs)
        if cap is not None:
            self._fleet_toml = self._fleet_toml.replace(
                'credential = "main"', f'credential = "main"\nmax_concurrent_tasks = {cap}'
            )
        self.machines = tuple(machines)
        self.disks = [(machine, disk) for machine in machines for disk in machine.disks]
        self.wires: dict[str, Relay] = {}
        self.as_old_as: dict[str, int] = {}
        """Versions of the contract that proxies say they speak, where it isn't this one."""
        self._nbd_rate = nbd_mib_s
        self._repository_mib = repository_mib
        self._hurried = hurried
        self._serve_disk = state / "serve-disk"
        self.ledger: Ledger

    @property
    def real_repository(self) -> Path:
        """Where the repository is; the layout's own place is a mount of it, as on a client of a file server."""
        return self.layout.state / "repository.real"

    @property
    def _server_state(self) -> Path:
        """Where the scheduler's database is: a file system of its own."""
        return self.layout.state / "scheduler"

    def _begin(self) -> None:
        self._serve_disk.write_text(SERVE_DISK.format(bits=self._nbd_rate * 8))
        self._serve_disk.chmod(0o700)
        for place in (self.layout.repository, self.real_repository):
            place.mkdir()
        run_as_root("mount", "-t", "tmpfs", "-o", f"size={self._repository_mib}m", "none", self.real_repository)
        run_as_root("mount", "--bind", self.real_repository, self.layout.repository)
        self._server_state.mkdir()
        run_as_root("mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "none", self._server_state)
        make_machines(self.machines, self.layout.datastores, self.layout.scratch)
        super()._begin()
        self.ledger = Ledger(self.valkey.url, password=self.valkey.password)
        self.database: State = open_state(f"sqlite:///{self._server_state / 'scheduler.db'}")

    def _end(self) -> None:
        super()._end()
        for wire in self.wires.values():
            wire.close()
        for place in (self.layout.repository, self.real_repository, self._server_state):
            if os.path.ismount(place):
                run_as_root("umount", "--lazy", place)

    def _write_files(self) -> None:
        super()._write_files()
        self._through_relay(SCHEDULER, self.layout.scheduler_config)

    def _configure(self, proxy: ProxyPlace) -> None:
        super()._configure(proxy)
        config = self.layout.proxy_config(proxy.name)
        words = [str(self._serve_disk), "{socket}", f"{self.layout.datastores / proxy.datastore}/{{path}}"]
        command = f"network_command = {words}\n".replace("'", '"')
        config.write_text(config.read_text() + command)
        self._through_relay(proxy.name, config)

    def _through_relay(self, name: str, config: Path) -> None:
        wire = self.wires[name] = Relay(self.layout.redis_port)
        config.write_text(config.read_text().replace(str(self.layout.redis_port), str(wire.port)))
        self.set_clock(name, 0)

    def _clock(self, name: str) -> Path:
        return self.layout.state / f"clock-{name}"

    def set_clock(self, name: str, ahead_s: float) -> None:
        """Let a process believe in another time of day, within a second."""
        fresh = self._clock(name).with_suffix(".new")
        fresh.write_text(f"{ahead_s:.0f}\n")
        fresh.replace(self._clock(name))

    def _program(self, name: str) -> list[str]:
        program, *words = super()._program(name)
        command = [sys.executable, "-m", stand_in.__name__, Path(program).name, *words]
        return command if name == SCHEDULER else ["unshare", "--mount", "--propagation", "private", *command]

    def _surroundings(self, name: str) -> Mapping[str, str]:
        return {
            **super()._surroundings(name),
            "PYTHONPATH": str(REPOSITORY_ROOT),
            stand_in.CLOCK: str(self._clock(name)),
            stand_in.HURRIED: "1" if self._hurried else "",
            stand_in.CONTRACT: str(self.as_old_as.get(name, "")),
        }

    def processes(self, name: str) -> list[psutil.Process]:
        """The scheduler's or a proxy's main process, and all that it started."""
        main = psutil.Process(self.main_process(name))
        return [main, *main.children(recursive=True)]

    def freeze(self, name: str) -> list[psutil.Process]:
        """Stop every process of one; returns what `thaw` takes."""
        frozen = self.processes(name)
        for process in frozen:
            process.suspend()
        return frozen

    def thaw(self, frozen: Sequence[psutil.Process]) -> None:
        """Let them go on."""
        for process in frozen:
            if process.is_running():
                process.resume()

    def terminate(self, name: str) -> None:
        """End a proxy in order, and wait for it."""
        service = self._services[name]
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(120)
        self.supervisor.forget(service)

    def crowd_state(self, proxy: str) -> None:
        """Leave a proxy no room for its state."""
        state = self.layout.state / "proxies" / proxy
        self._in_its_view(proxy, "mount", "-t", "tmpfs", "-o", "size=1m", "none", state)

    def clear_state(self, proxy: str) -> None:
        """Give it its room back."""
        self._in_its_view(proxy, "umount", "--lazy", self.layout.state / "proxies" / proxy)

    def fill_repository(self, *, leave_bytes: int) -> Path:
        """Take the repository's room; returns the file to remove."""
        return _balloon(self.real_repository, leave_bytes)

    def fill_database(self) -> Path:
        """Take the room of the scheduler's database; returns the file to remove."""
        with contextlib.closing(sqlite3.connect(self._server_state / "scheduler.db", timeout=120)) as database:
            # The log of changes is reused from its start otherwise, and wants no room for minutes.
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return _balloon(self._server_state, 0)

    def starve(self, proxy: str) -> list[psutil.Process]:
        """Give a proxy's pool processes no more memory than they have; returns what `feed` takes."""
        pool = self.pool(proxy)
        for process in pool:
            _limit_memory(process, process.memory_info().vms + 4 * MIB)
        return pool

    def pool(self, proxy: str) -> list[psutil.Process]:
        """The processes that a proxy works in."""
        main = self.main_process(proxy)
        return [process for process in self.processes(proxy)[1:] if process.ppid() == main]

    def feed(self, starved: Sequence[psutil.Process]) -> None:
        """Let them have memory again."""
        for process in starved:
            if process.is_running():
                _limit_memory(process, resource.RLIM_INFINITY)

    def break_disk(self, machine: Machine, disk: Disk, *, on: bool = True) -> None:
        """Let every read of a disk fail with EIO, also of those that are being read."""
        _mark(Path(f"{self.flat(machine, disk)}.broken"), on=on)

    def hide_repository(self, proxy: str) -> None:
        """Let one proxy lose its mount: it sees the empty folder beneath."""
        self._in_its_view(proxy, "umount", "--lazy", self.layout.repository)

    def show_repository(self, proxy: str) -> None:
        """Mount it again."""
        self._in_its_view(proxy, "mount", "--bind", self.real_repository, self.layout.repository)

    def _in_its_view(self, proxy: str, *command: str | Path) -> None:
        run_as_root("nsenter", "--mount", "--root", "--target", str(self.main_process(proxy)), *command)

    def poison(self, machine: Machine, disk: Disk, *, on: bool = True) -> None:
        """Let a disk kill every process that opens it."""
        _mark(Path(f"{self.flat(machine, disk)}.poison"), on=on)

    def flat(self, machine: Machine, disk: Disk) -> Path:
        """The file of a disk's bytes."""
        return flat_path(self.layout.datastores / machine.datastore / machine.name, disk)

    def log(self, name: str) -> str:
        """All that a process has written."""
        return (self.layout.state / "logs" / f"{name}.log").read_text(errors="replace")

    def view(self) -> FleetView:
        """The ledger, past every relay."""
        return self.ledger.view()

    def running(self, proxy: str | None = None) -> list[TaskView]:
        """Disks that move now: of one proxy, or all."""
        return [
            task
            for task in self.view().tasks.values()
            if task.state is TaskState.RUNNING and task.kind.takes_slot and proxy in {None, task.proxy}
        ]

    def start_run(self) -> str:
        """Ask for a run of the job, and return its id."""
        with self.database.write() as session:
            return ask_for_run(session, "everything", now=time.time()).id

    def begin_run(self, *proxies: str) -> str:
        """Start a run and return once data moves on each of these proxies."""
        run = self.start_run()

        def moving() -> bool:
            with self.database.read() as session:
                row = session.get_one(Run, run)
                assert not row.state.final, f"run {run} has ended: {row.reason}"
            return {task.proxy for task in self.running() if task.progress} >= set(proxies)

        wait_until(moving, f"disks to move on {proxies}")
        return run

    def end_run(
        self,
        run: str,
        *,
        timeout_s: float = 120,
        each_look: Callable[[], None] = lambda: None,
        from_final: bool = False,
    ) -> RunState:
        """Wait for a run's end; with `from_final`, for that of its retry, which may not have begun."""
        states: list[RunState] = []
        if from_final:
            self._await_retry(run)

        def ended() -> bool:
            each_look()
            with self.database.read() as session:
                states.append(session.get_one(Run, run).state)
            return states[-1].final

        wait_until(ended, f"the end of run {run}", timeout_s=timeout_s)
        return states[-1]

    def _await_retry(self, run: str) -> None:
        def begun() -> bool:
            with self.database.read() as session:
                return not session.get_one(Run, run).state.final

        wait_until(begun, f"the retry of run {run}", every_s=0.02)

    def disks_of(self, run: str) -> list[DiskTask]:
        """The disks of a run as they were recorded."""
        with self.database.read() as session:
            return list(session.scalars(select(DiskTask).where(DiskTask.run_id == run)))

    def assert_safe(self, points: Mapping[str, int] | None = None, *, but: Machine | None = None) -> None:
        """No slot and no cap is left behind; each VM's newest point is what its disks are now, `but` that of one.

        `points` are how many restore points each VM has to have.
        """
        wait_until(lambda: not self._held(), "every slot and cap to be free")
        credential = load_credential(passphrase_file=self.layout.passphrase)
        store = open_store(str(self.real_repository))
        with tempfile.TemporaryDirectory() as folder, Repository.open(store, credential) as repository:
            if points is not None:
                found = Counter(point.vm_name for point in repository.points())
                wrong = {name: found[name] for name in found.keys() | points if found[name] != points.get(name, 0)}
                assert not wrong, f"not committed once each, {points}: {wrong}"
            for machine, disk in self.disks:
                if machine is but:
                    continue
                restored = _restored(repository, machine, disk, Path(folder) / f"{machine.name}-{disk.key}")
                assert restored == _digest(self.flat(machine, disk)), f"{machine.name} {disk.key} differs"

    def _held(self) -> list[str]:
        view = self.view()
        return [*view.tasks, *view.caps, *(name for name, proxy in view.proxies.items() if proxy.slots_used)]

    def each_wire(self, change: Callable[[Relay], None]) -> None:
        """Do the same to every wire."""
        for wire in self.wires.values():
            change(wire)

    def settle(self) -> None:
        """Cancel what still runs, and wait for its end."""
        with self.database.write() as session:
            active = [run for run in session.scalars(select(Run)) if not run.state.final]
            for run in active:
                run.cancel_requested = True
            names = [run.id for run in active]
        for name in names:
            self.end_run(name)

    def heal(self) -> None:
        """Mend every wire and clock."""
        for name, wire in self.wires.items():
            wire.wire = Wire.WHOLE
            wire.answer_delay_s = 0.0
            self.set_clock(name, 0)


def _balloon(folder: Path, leave_bytes: int) -> Path:
    balloon = folder / "balloon"
    with balloon.open("wb") as file:
        # Others take of it meanwhile: then once more with what they have left.
        while (room := shutil.disk_usage(folder).free - leave_bytes) > 0:
            try:
                os.posix_fallocate(file.fileno(), 0, room)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            else:
                break
    return balloon


def _limit_memory(process: psutil.Process, limit_bytes: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        process.rlimit(resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))


def _mark(path: Path, *, on: bool) -> None:
    path.touch() if on else path.unlink(missing_ok=True)


def _restored(repository: Repository, machine: Machine, disk: Disk, target: Path) -> str:
    newest = max(
        (point for point in repository.points() if point.vm_name == machine.name), key=lambda point: point.sequence
    )
    request = DiskRestore(
        repository=RepositoryReference(name="main", location="", credential="main"),
        vm=VmIdentity(vm_id=newest.vm_id, name=newest.vm_name),
        run=newest.run,
        disk_key=disk.key,
        target_path=str(target),
    )
    restore_disk(repository, request, Unattended())
    digest = _digest(target)
    target.unlink()
    return digest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
