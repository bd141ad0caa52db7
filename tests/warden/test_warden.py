"""What is locked stays as it is, for everybody, until a clock that nobody can set says so."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_worker.link.messages import encoded
from proxy_worker.repository.store import ObjectLockedError
from proxy_worker.warden import flags
from proxy_worker.warden.messages import Ask
from proxy_worker.warden.register import Register, RegisterError, boottime
from proxy_worker.warden.serving import answer_to
from proxy_worker.warden.terms import Terms
from proxy_worker.warden.warden import LockError
from tests.warden.vault import (
    DAY_S,
    PERIOD_S,
    Clock,
    CrashingRegister,
    NearWarden,
    as_owner,
    give_away,
    write,
)

PACK, POINT = "packs/ab/one", "points/vm/run"


def left_s(warden: NearWarden, name: str) -> float:
    (left,) = warden.left_s([name])
    return left


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"mine"),
        lambda path: path.open("ab"),
        lambda path: os.truncate(path, 0),
        lambda path: path.unlink(),
        lambda path: path.rename(path.with_name("another")),
        lambda path: path.with_name("another").hardlink_to(path),
        lambda path: path.chmod(0o777),
        lambda path: os.chown(path, 1, 1),
        lambda path: path.parent.rename(path.parent.with_name("another")),
        lambda path: path.parent.parent.rename(path.parent.parent.with_name("another")),
    ],
    ids=["write", "append", "truncate", "unlink", "rename", "link", "chmod", "chown", "folder", "folder above"],
)
def test_not_even_root_changes_what_is_locked(
    warden: NearWarden, root: Path, change: Callable[[Path], object]
) -> None:
    path = write(root, PACK)
    warden.lock(PACK)

    with pytest.raises(PermissionError):
        change(path)
    assert path.read_bytes() == b"content"


def test_a_gateway_that_somebody_broke_into_can_do_no_more(warden: NearWarden, root: Path) -> None:
    path = write(root, PACK)
    give_away(root)
    warden.lock(PACK)

    for command in (
        ("rm", "-f", path),
        ("rm", "-rf", root / "packs"),
        ("truncate", "--size=0", path),
        ("mv", path, root / "tmp"),
        ("mv", root / "packs", root / "tmp"),
        ("chattr", "-i", path),
        ("chattr", "-a", root),
        ("unshare", "--map-root-user", "chattr", "-i", path),
        ("sh", "-c", f"echo mine > {path}"),
    ):
        assert as_owner(*command).returncode != 0, command
    assert path.read_bytes() == b"content"
    assert as_owner("cat", path).stdout == "content"


def test_it_lets_go_when_the_term_is_over_and_not_before(warden: NearWarden, root: Path, clock: Clock) -> None:
    path = write(root, POINT)
    warden.lock(POINT)

    clock.now_s += PERIOD_S - 60
    with pytest.raises(ObjectLockedError, match=r"points/vm/run: .* immutable for another hour"):
        warden.release(POINT)
    assert left_s(warden, POINT) == pytest.approx(60)
    clock.now_s += 61
    assert left_s(warden, POINT) == 0
    with path.open() as file:
        others = flags._flags(file.fileno()) & ~flags.Flag.IMMUTABLE.value
        warden.release(POINT)
        assert flags._flags(file.fileno()) == others != 0, "what else is said of the file stays"
    path.unlink()


@pytest.mark.parametrize("years", [-50, 50], ids=["back", "forward"])
def test_setting_the_system_clock_ends_no_term(
    root: Path, place: Path, years: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(root, POINT)
    shift_s = years * 365 * DAY_S
    real_time, real_clock = time.time, time.clock_gettime
    with closing(NearWarden(root, place, boottime)) as warden:
        warden.lock(POINT)

        monkeypatch.setattr(time, "time", lambda: real_time() + shift_s)
        monkeypatch.setattr(
            time,
            "clock_gettime",
            lambda clock_id: real_clock(clock_id) + (shift_s if clock_id == time.CLOCK_REALTIME else 0),
        )
        with pytest.raises(PermissionError):
            os.utime(path, (0, 0))

        assert left_s(warden, POINT) == pytest.approx(PERIOD_S, abs=DAY_S)
        with pytest.raises(ObjectLockedError):
            warden.release(POINT)


def test_a_register_counts_by_the_real_clock(place: Path) -> None:
    register = Register(place / "register.db")
    before, began = register.now_s, time.clock_gettime(time.CLOCK_BOOTTIME)
    while time.clock_gettime(time.CLOCK_BOOTTIME) < began + 0.05:
        pass
    assert 0.05 <= register.now_s - before < 3600
    register.close()


@pytest.mark.parametrize("boottime_s", [5.0, 1e9], ids=["another boot", "days later"])
def test_time_without_a_warden_does_not_count(
    start: Callable[[], NearWarden], root: Path, clock: Clock, boottime_s: float
) -> None:
    write(root, POINT)
    warden = start()
    warden.lock(POINT)
    clock.now_s += DAY_S
    warden.close()

    clock.now_s = boottime_s
    again = start()
    assert left_s(again, POINT) == pytest.approx(PERIOD_S - DAY_S)
    clock.now_s += DAY_S
    assert left_s(again, POINT) == pytest.approx(PERIOD_S - 2 * DAY_S)


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.tuples(st.floats(0, DAY_S), st.sampled_from(["save", "crash", "reboot"])), max_size=8))
def test_whatever_happens_the_clock_never_runs_ahead(steps: list[tuple[float, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, clock = Path(folder) / "register.db", Clock()
        register, passed_s, saved_s = CrashingRegister(file, clock), 0.0, 0.0
        for seconds, event in steps:
            clock.now_s += seconds
            passed_s += seconds
            assert saved_s <= register.now_s <= passed_s + 1e-3
            if event == "save":
                register.save()
                saved_s = register.now_s
            else:
                register.drop()
                clock.now_s = 0.0 if event == "reboot" else clock.now_s + seconds
                register = CrashingRegister(file, clock)
                assert register.now_s == saved_s
        register.drop()


def test_a_crash_before_the_flag_is_set_is_made_good_by_the_next_sweep(
    start: Callable[[], NearWarden], root: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(root, POINT)
    warden = start()
    with monkeypatch.context() as broken:
        broken.setattr(flags, "put", _crash)
        with pytest.raises(KeyboardInterrupt):
            warden.lock(POINT)
    warden.crash()
    clock.now_s += PERIOD_S * 2

    _require_swept(start(), path)


def test_a_crash_before_it_is_written_down_is_made_good_by_the_next_sweep(
    start: Callable[[], NearWarden], root: Path, place: Path, clock: Clock
) -> None:
    path = write(root, POINT)
    with path.open() as file:
        flags.put(file.fileno(), flags.Flag.IMMUTABLE)

    _require_swept(start(), path)


def _crash(*_: object) -> None:
    raise KeyboardInterrupt


def _require_swept(warden: NearWarden, path: Path) -> None:
    """A sweep gives the point a whole term, and there is nothing left to do."""
    assert warden.warden.sweep() == 1
    assert left_s(warden, POINT) == pytest.approx(PERIOD_S)
    with pytest.raises(PermissionError):
        path.unlink()
    assert warden.warden.sweep() == 0


def test_without_its_register_every_term_begins_again(
    warden: NearWarden, root: Path, tmp_path: Path, clock: Clock
) -> None:
    write(root, POINT)
    warden.lock(POINT)
    clock.now_s += PERIOD_S * 2

    other = NearWarden(root, tmp_path, clock)
    with pytest.raises(ObjectLockedError):
        other.release(POINT)
    other.close()


def test_a_damaged_register_lets_go_of_nothing(place: Path) -> None:
    (place / "register.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    with pytest.raises(RegisterError, match=r"register.db.*begins again"):
        Register(place / "register.db")


def test_two_wardens_of_one_folder_are_one_too_many(warden: NearWarden, place: Path) -> None:
    with pytest.raises(RegisterError, match="locked"):
        Register(place / "register.db")


def test_packs_that_are_needed_are_renewed_before_they_have_less_than_a_point_would(
    warden: NearWarden, root: Path, clock: Clock
) -> None:
    write(root, PACK)
    write(root, POINT)
    warden.lock(PACK)
    warden.lock(POINT)
    for _ in range(100):
        clock.now_s += PERIOD_S / 8
        warden.renew([PACK, POINT, "packs/ab/gone"])
        assert left_s(warden, PACK) >= PERIOD_S * 1.25
    assert left_s(warden, POINT) == 0, "restore points aren't renewed"

    clock.now_s += PERIOD_S * 2
    assert left_s(warden, PACK) == 0
    assert warden.renew([PACK]) == 1, "one that is needed again has a whole term again"
    assert left_s(warden, PACK) > PERIOD_S


def test_upkeep_is_overdue_until_it_has_renewed_all_and_again_after_an_eighth(
    warden: NearWarden, clock: Clock
) -> None:
    assert warden.overdue
    warden.keep()
    clock.now_s += PERIOD_S / 8 - 1
    assert not warden.overdue
    clock.now_s += 2
    assert warden.overdue


def test_what_a_repository_cannot_be_read_without_is_locked_for_ever(
    warden: NearWarden, root: Path, clock: Clock
) -> None:
    for name in ("config/1", "keys/a"):
        write(root, name)
        warden.lock(name)
        clock.now_s += 1e9
        assert left_s(warden, name) == math.inf
        with pytest.raises(ObjectLockedError, match="for ever"):
            warden.release(name)


def test_marks_and_what_can_be_found_out_again_are_not_locked(warden: NearWarden, root: Path) -> None:
    marks = ("writers/vm/run/disk.1", "readers/a", "proofs/1", "damaged/a/b", "tmp/a")
    for name in (*marks, POINT):
        write(root, name)
    assert warden.warden.sweep() == 1
    for name in marks:
        (root / name).unlink()


def test_links_and_pipes_lead_it_nowhere(warden: NearWarden, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"not its own")
    write(root, PACK)
    (root / "packs/ab/link").symlink_to(outside)
    os.mkfifo(root / "packs/ab/pipe")
    (root / "packs/cd").symlink_to(tmp_path)

    for name in ("packs/ab/link", "packs/ab/pipe", "packs/cd/outside"):
        with pytest.raises(LockError):
            warden.warden.lock([name])
    outside.unlink()
    assert warden.warden.sweep() == 1


def test_folders_deeper_than_any_object_are_not_looked_into(warden: NearWarden, root: Path) -> None:
    write(root, PACK)
    write(root, "a/b/c/d/e/deepest")
    folder = os.open(root, os.O_RDONLY)
    for _ in range(1_100):
        os.mkdir("d", dir_fd=folder)
        above, folder = folder, os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(above)
    os.close(folder)

    answer = answer_to(encoded(Ask("sweep")), warden.warden)
    assert (answer.refusal, answer.count) == (None, 2)


@pytest.mark.parametrize("verb", ["lock", "renew", "release", "left"])
@pytest.mark.parametrize("name", ["../outside/x", "packs/../../x", "/etc/passwd", "", "packs", "a/b\0", "a/" * 9])
def test_of_names_that_lead_elsewhere_nothing_is_known(warden: NearWarden, verb: Any, name: str) -> None:
    answer = answer_to(encoded(Ask(verb, (name,))), warden.warden)
    assert answer.refusal
    assert answer.refusal.code == "object-name"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=64))
def test_whatever_it_is_sent_it_answers(warden: NearWarden, datagram: bytes) -> None:
    assert answer_to(datagram, warden.warden).refusal


def test_terms_are_long_enough_for_points_that_are_made_in_between() -> None:
    terms = Terms(PERIOD_S)
    worst_s = PERIOD_S * 1.25 - 2 * PERIOD_S / 8  # due a moment later, then not renewed twice
    assert worst_s >= terms.of(POINT)
