"""What every store does. A new kind of store joins by being added to `STORES`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy_worker.repository.store import ObjectNameError, ObjectNotFoundError, Store
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.store.locks import ObjectLock
from proxy_worker.repository.store.objects import ObjectStore
from proxy_worker.repository.store.remote import RemoteStore
from tests.gateway.serving import Fleet, Served
from tests.gateway.serving import serving as serving_a_gateway
from tests.repository.faulty_store import FaultyStore
from tests.simulators.object_storage import ACCESS_KEY, ObjectStorage


def _local(folder: Path) -> Store:
    store = LocalStore(folder / "store")
    store.prepare()
    return store


STORES: dict[str, Callable[[Path], Store]] = {
    "local": _local,
    "wrapped": lambda folder: FaultyStore(_local(folder)),
}
OBJECTS = "objects"
LOCKED_OBJECTS = "locked objects"
REMOTE = "remote"
SPOOLING = (ObjectStore, RemoteStore)
"""What is unfinished lies beside whoever writes it."""


class Moving(LocalStore):
    """A folder for each test, behind one gateway."""

    def move_to(self, folder: Path) -> None:
        super().__init__(folder)
        self.prepare()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Moving]]:
    folder = tmp_path_factory.mktemp("gateway")
    moving = Moving(folder / "store")
    with serving_a_gateway(Fleet.made(folder / "fleet"), {"main": moving}) as served:
        yield served, moving


@pytest.fixture(params=[*STORES, OBJECTS, LOCKED_OBJECTS, REMOTE])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == REMOTE:
        served, moving = request.getfixturevalue("gateway")
        moving.move_to(tmp_path / "store")
        remote = served.store(served.keeper)
        yield remote
        remote.close()
        return
    yield _made(request, tmp_path)


def _made(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == OBJECTS:
        running: ObjectStorage = request.getfixturevalue("object_storage")
        store = ObjectStore(running.url(), access_key=ACCESS_KEY)
        store.prepare()
        return store
    if request.param == LOCKED_OBJECTS:
        running = request.getfixturevalue("object_storage")
        store = ObjectStore(running.locking_url(), access_key=ACCESS_KEY)
        store.lock_objects(ObjectLock("governance", days=1))
        store.prepare()
        return store
    return STORES[request.param](tmp_path)


def test_an_object_reads_back_whole_and_by_ranges(store: Store) -> None:
    assert store.put_if_absent("packs/ab/one", [b"hello ", b"world"])

    assert store.get("packs/ab/one") == b"hello world"
    assert store.get("packs/ab/one", 6) == b"world"
    assert store.get("packs/ab/one", 3, 4) == b"lo w"
    assert store.get("packs/ab/one", 9, 100) == b"ld"
    assert store.get("packs/ab/one", 50, 10) == b""
    assert store.size("packs/ab/one") == 11


def test_reading_into_a_buffer_stops_at_the_end(store: Store) -> None:
    store.put_if_absent("index/a", [b"0123456789"])
    buffer = bytearray(8)

    assert store.read_into("index/a", 6, memoryview(buffer)) == 4
    assert buffer[:4] == b"6789"


def test_the_first_to_take_a_name_keeps_it(store: Store) -> None:
    assert store.put_if_absent("points/vm/run", [b"first"])
    assert not store.put_if_absent("points/vm/run", [b"second"])

    assert store.get("points/vm/run") == b"first"


def test_of_many_at_once_one_takes_the_name(store: Store) -> None:
    start = threading.Barrier(8)

    def put(number: int) -> int | None:
        start.wait()
        return number if store.put_if_absent("points/vm/run", [b"%d" % number] * 1000) else None

    with ThreadPoolExecutor(8) as threads:
        won = [number for number in threads.map(put, range(8)) if number is not None]

    assert len(won) == 1
    assert store.get("points/vm/run") == b"%d" % won[0] * 1000


def test_an_object_has_no_name_before_it_is_finished(store: Store) -> None:
    writer = store.create("packs/ab/one")
    writer.write(b"half")

    assert not store.exists("packs/ab/one")
    assert list(store.list("packs/")) == []
    writer.write(b" and half")
    assert writer.finish()
    assert store.get("packs/ab/one") == b"half and half"


def test_a_discarded_object_leaves_nothing(store: Store) -> None:
    writer = store.create("packs/ab/one")
    writer.write(b"half")
    writer.discard()
    writer.discard()

    assert not store.exists("packs/ab/one")
    assert list(store.leftovers()) == []


def test_an_unfinished_object_is_a_leftover_where_it_lies_in_the_store(store: Store) -> None:
    writer = store.create("packs/ab/one")
    writer.write(b"half")

    assert len(list(store.leftovers())) == (0 if isinstance(store, SPOOLING) else 1)
    writer.discard()


def test_a_leftover_goes_when_nobody_has_written_to_it_for_long(store: Store) -> None:
    store.put_if_absent("packs/ab/whole", [b"whole"])
    writer = store.create("packs/ab/one")
    writer.write(b"half")
    there = len(list(store.leftovers()))

    assert store.remove_leftovers(before=time.time() - 3600) == 0
    assert len(list(store.leftovers())) == there
    assert store.remove_leftovers(before=time.time() + 3600) == there
    assert list(store.leftovers()) == []
    assert list(store.list("packs/")) == ["packs/ab/whole"]
    writer.discard()


def test_finishing_under_a_taken_name_drops_the_later_object(store: Store) -> None:
    store.put_if_absent("packs/ab/one", [b"first"])
    writer = store.create("packs/ab/one")
    writer.write(b"second")

    assert not writer.finish()
    assert store.get("packs/ab/one") == b"first"
    assert list(store.leftovers()) == []


def test_replacing_is_for_both_new_and_old_names(store: Store) -> None:
    store.replace("keys/a", [b"one"])
    store.replace("keys/a", [b"two"])

    assert store.get("keys/a") == b"two"


def test_listing_gives_whole_names_below_a_prefix(store: Store) -> None:
    for name in ("points/vm/a", "points/vm/b", "points/vm2/a", "index/x"):
        store.put_if_absent(name, [b""])

    assert set(store.list("points/")) == {"points/vm/a", "points/vm/b", "points/vm2/a"}
    assert set(store.list("points/vm/")) == {"points/vm/a", "points/vm/b"}
    assert list(store.list("seals/")) == []


def test_deleting_frees_the_name_and_may_be_repeated(store: Store) -> None:
    store.put_if_absent("writers/vm/run/disk.1", [b"x"])
    store.delete("writers/vm/run/disk.1")
    store.delete("writers/vm/run/disk.1")

    assert not store.exists("writers/vm/run/disk.1")
    assert store.put_if_absent("writers/vm/run/disk.1", [b"y"])


@pytest.mark.parametrize("read", [Store.get, Store.size])
def test_what_is_absent_is_named_in_the_error(store: Store, read: Callable[[Store, str], object]) -> None:
    with pytest.raises(ObjectNotFoundError, match="packs/ab/none"):
        getattr(store, read.__name__)("packs/ab/none")
    with pytest.raises(ObjectNotFoundError, match="packs/ab/none"):
        store.read_into("packs/ab/none", 0, memoryview(bytearray(1)))


@pytest.mark.parametrize(
    "name", ["", "a", "/a/b", "a//b", "../a/b", "a/../b", "a/b/", "a/.hidden", "a/b\n", "a/b\0", "a/" + "x" * 200]
)
def test_names_that_could_lead_elsewhere_are_refused(store: Store, name: str) -> None:
    with pytest.raises(ObjectNameError):
        store.put_if_absent(name, [b""])
    with pytest.raises(ObjectNameError):
        store.get(name)


@pytest.mark.parametrize("prefix", ["", "/", "points", "../", "points/../"])
def test_prefixes_that_could_lead_elsewhere_are_refused(store: Store, prefix: str) -> None:
    with pytest.raises(ObjectNameError):
        list(store.list(prefix))
