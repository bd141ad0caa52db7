"""`proxy-worker warden` as a process: what it may do, where it refuses to start, and what a kill leaves."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from proxy_worker.contract.errors import StoreError
from proxy_worker.repository.store import ObjectLockedError
from proxy_worker.repository.store.remote import RemoteStore
from proxy_worker.warden import fitness
from proxy_worker.warden.rights import HardeningRefusedError
from scheduler.pki.certificates import Role
from tests.gateway.serving import Fleet
from tests.simulators.loop_devices import run
from tests.system.live_fleet import wait_until
from tests.warden.vault import (
    AS_GATEWAY,
    DAY_S,
    OWNER,
    command,
    give_away,
    program,
    refusal_of,
    serving_process,
    settings_in,
    write,
)

LINUX_IMMUTABLE = 1 << 9
POINT = "points/vm/run"


def test_it_keeps_one_right_and_answers_the_folders_owner_alone(root: Path, place: Path) -> None:
    settings_in(place, root)
    write(root, "packs/ab/one")
    give_away(root)
    with program(place) as warden:
        status = warden.status()
        assert set(status["Uid"].split()) == {str(OWNER)}
        assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == LINUX_IMMUTABLE
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        socket = (place / "run/main.socket").stat()
        assert (socket.st_uid, socket.st_mode & 0o077) == (OWNER, 0)

        warden.client.connect()
        with pytest.raises(PermissionError):
            (root / "packs/ab/one").unlink()

        assert "another warden" in refusal_of(*command(place))
        warden.client.connect()
    assert (place / "state/main").stat().st_mode & 0o007 == 0


def test_what_it_said_was_locked_is_locked_after_a_kill_and_for_no_less(root: Path, place: Path) -> None:
    settings_in(place, root)
    names = [f"points/vm/{number}" for number in range(200)]
    locked: list[str] = []
    with program(place) as warden:
        client = warden.client
        client.connect()
        for name in names:
            write(root, name)
        give_away(root)

        def lock_all() -> None:
            with suppress(OSError):  # it is away
                for name in names:
                    client.lock(name)
                    locked.append(name)

        locking = threading.Thread(target=lock_all)
        locking.start()
        wait_until(lambda: len(locked) >= 20, "some to be locked")
        warden.process.kill()
        locking.join()

    for name in locked[-20:]:
        with pytest.raises(PermissionError):
            (root / name).unlink()
    with program(place) as again:
        client = again.client
        assert all(left_s > 8 * DAY_S - 600 for left_s in client.left_s(names)), "also of those it had not come to"
        with pytest.raises(ObjectLockedError):
            client.release(locked[-1])


def test_what_could_not_be_locked_is_before_anything_else_is_answered(root: Path, place: Path) -> None:
    settings_in(place, root)
    write(root, "points/vm/earlier")
    give_away(root)
    with program(place) as warden:
        client = warden.client
        client.connect()
        path = write(root, POINT)
        with pytest.raises(StoreError, match=f"{POINT}: Operation not permitted"):
            client.lock(POINT)
        os.chown(path, OWNER, OWNER)
        assert list(client.left_s([POINT])) == [pytest.approx(8 * DAY_S, abs=DAY_S)]
        with pytest.raises(PermissionError):
            path.unlink()


def test_of_a_folder_that_it_cannot_read_it_tells_who_asks_and_its_log(root: Path, place: Path) -> None:
    settings_in(place, root)
    with program(place) as warden:
        warden.client.connect()
        (root / "oddity").mkdir(mode=0o700)
        with pytest.raises(StoreError, match="can't read oddity: Permission denied"):
            warden.client.connect()
        assert "can't read oddity: Permission denied" in (place / "warden.log").read_text()
        os.chown(root / "oddity", OWNER, OWNER)
        warden.client.connect()


def test_a_term_ends_by_the_real_clock(root: Path, place: Path) -> None:
    settings_in(place, root, days=1 / DAY_S)
    for name in ("points/vm/run", "config/1"):
        write(root, name)
    give_away(root)
    with program(place) as warden:
        client = warden.client
        client.connect()
        wait_until(lambda: next(client.left_s(["points/vm/run"])) == 0, "a second to pass")
        client.release("points/vm/run")
        (root / "points/vm/run").unlink()
        assert list(client.left_s(["config/1"])) == [math.inf]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("tmpfs", "its file system is tmpfs: what it holds is gone when the machine restarts"),
        ("overlay", "its file system is overlay: what lies beneath it can be changed"),
    ],
)
def test_it_refuses_file_systems_that_cannot_keep_the_promise(ext4: Path, place: Path, kind: str, why: str) -> None:
    options = "size=1m"
    if kind == "overlay":
        for name in ("lower", "upper", "work"):
            (ext4 / name).mkdir()
        options = f"lowerdir={ext4}/lower,upperdir={ext4}/upper,workdir={ext4}/work"
    with _mounted(kind, place / "point", options) as point:
        give_away(point)
        settings_in(place, point)
        assert why in refusal_of(*command(place))


def test_it_refuses_file_systems_without_the_flag(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "_UNFIT", {})
    with _mounted("ramfs", place / "point", "rw") as point:
        with pytest.raises(HardeningRefusedError, match="ramfs, has no flag that makes files immutable"):
            fitness.require_immutability(point)
        assert list((point / "tmp").iterdir()) == []


@contextmanager
def _mounted(kind: str, point: Path, options: str) -> Iterator[Path]:
    point.mkdir()
    run("mount", "-t", kind, "-o", options, "none", point)
    try:
        yield point
    finally:
        run("umount", point)


def test_it_refuses_to_start_without_the_capability(root: Path, place: Path) -> None:
    settings_in(place, root)
    said = refusal_of("setpriv", "--bounding-set=-linux_immutable", *command(place))
    assert "lacks the capability CAP_LINUX_IMMUTABLE" in said


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda root, _: run("chown", "0:0", root), "the folder belongs to root"),
        (lambda root, _: run("chmod", "o+w", root.parent), f"user {OWNER}, whom the gateway runs as, may change"),
        (lambda _, place: give_away(place / "gateway.toml"), f"user {OWNER}, whom the gateway runs as, may change"),
        (lambda _, place: give_away(place / "run"), f"run: user {OWNER}, whom the gateway runs as, may change"),
        (lambda root, place: settings_in(place, root, name="other"), "has no [repositories.main.hardened]"),
    ],
    ids=["root's folder", "folder above in reach", "settings in reach", "socket in reach", "not hardened"],
)
def test_it_refuses_where_the_gateway_could_get_around_it(
    root: Path, place: Path, spoil: Callable[[Path, Path], object], why: str
) -> None:
    settings_in(place, root)
    spoil(root, place)
    assert why in refusal_of(*command(place))


@pytest.mark.parametrize(
    ("mode", "group", "hidden", "refused"),
    [
        (0o755, 0, False, False),
        (0o775, 0, False, False),
        (0o775, OWNER, False, True),
        (0o757, 0, False, True),
        (0o770, 0, True, False),
        (0o770, OWNER, True, True),
        (0o711, 0, True, True),
    ],
)
def test_what_the_gateway_may_change_or_enter_is_in_reach(
    root: Path, place: Path, *, mode: int, group: int, hidden: bool, refused: bool
) -> None:
    os.chown(place, 0, group)
    place.chmod(mode)
    with pytest.raises(HardeningRefusedError) if refused else nullcontext():
        fitness.require_out_of_reach(place, root.stat(), hidden=hidden)


@pytest.mark.parametrize(
    ("mode", "owner_above", "owner_of_it", "refused"),
    [
        (0o755, 0, 0, False),
        (0o755, 0, OWNER, False),
        (0o757, 0, 0, True),
        (0o755, OWNER, 0, True),
        (0o1777, 0, 0, False),
        (0o1777, 0, OWNER, True),
        (0o1777, OWNER, 0, True),
    ],
)
@pytest.mark.parametrize("below", ["", "last"], ids=["next above", "further above"])
def test_folders_above_are_to_be_out_of_reach(
    root: Path, place: Path, *, mode: int, owner_above: int, owner_of_it: int, refused: bool, below: str
) -> None:
    above = place / "above"
    (above / "it/last").mkdir(parents=True)
    (place / "link").symlink_to(above / "it" / below)
    os.chown(above, owner_above, 0)
    os.chown(above / "it", owner_of_it, 0)
    above.chmod(mode)
    refused = refused or bool(below and owner_of_it)
    for path in (above / "it" / below, place / "link"):
        with pytest.raises(HardeningRefusedError, match="may change it") if refused else nullcontext():
            fitness.require_kept_in_place(path, root.stat())


def test_a_link_in_reach_is_no_way_to_what_is_not(root: Path, place: Path) -> None:
    (place / "safe").mkdir()
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    (place / "open/link").symlink_to(place / "safe")
    with pytest.raises(HardeningRefusedError, match="open: user"):
        fitness.require_out_of_reach(place / "open/link", root.stat())


def test_a_gateway_serves_what_is_hardened_only_beside_its_warden_and_without_rights(
    root: Path, place: Path
) -> None:
    fleet = Fleet.made(place / "fleet")
    keeper, proxy = fleet.identity("vault", Role.GATEWAY), fleet.identity("proxy-1")
    settings = settings_in(place, root)
    settings.write_text(settings.read_text().replace('"vault', f'"{keeper.certificate.parent}/vault').replace(
        '"ca.pem"', f'"{keeper.ca_file}"'
    ))  # fmt: skip
    serve = [sys.executable, "-m", "proxy_worker", "serve", "--json", "--config", str(settings)]
    assert "it runs as root" in refusal_of(*serve)
    assert "repository main is to be hardened, and isn't" in refusal_of(*AS_GATEWAY, *serve)

    with program(place), serving_process(*AS_GATEWAY, *serve) as port:
        store = RemoteStore(f"proxyfleet://127.0.0.1:{port}/main", proxy)
        assert store.put_if_absent("packs/ab/one", [b"content"])
        with pytest.raises(PermissionError):
            (root / "packs/ab/one").unlink()
        with pytest.raises(ObjectLockedError):
            RemoteStore(f"proxyfleet://127.0.0.1:{port}/main", keeper).delete("packs/ab/one")
        assert store.get("packs/ab/one") == b"content"
