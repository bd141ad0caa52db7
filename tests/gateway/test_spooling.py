"""Objects that are sent after they are made: at a rate of their own, and given up when nobody wants them."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

from proxy_worker.contract.errors import StoreError
from proxy_worker.link.frames import PAYLOAD_BYTES
from proxy_worker.mover.pacing import Pacing
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.store.remote import RemoteStore
from proxy_worker.repository.store.spool import Room
from tests.gateway.serving import HERE, Fleet, Served, serving
from tests.gateway.test_requests import files_of
from tests.repository.making import CREDENTIAL, KEY, SMALL, VM, make_repository, noise, store_content
from tests.surviving.relay import Relay, Wire
from tests.system.live_fleet import wait_until

NAME = "packs/ab/one"


def test_it_is_sending_that_keeps_to_a_rate_and_not_making(served: Served, folder: Path) -> None:
    ticks = itertools.count()
    pace = Pacing(PAYLOAD_BYTES, clock=lambda: next(ticks) / 10)
    store = served.store()
    store.pace = pace
    writer = store.create(NAME)
    writer.write(bytes(3 * PAYLOAD_BYTES))
    assert pace.use().spent_bytes == 0

    assert writer.finish()

    use = pace.use()
    assert use.spent_bytes == 3 * PAYLOAD_BYTES
    assert use.waited
    assert len(files_of(folder)[NAME]) == 3 * PAYLOAD_BYTES


def test_what_may_not_be_sent_now_can_be_given_up(served: Served, folder: Path) -> None:
    store = served.store()
    store.pace = Pacing(0)
    writer = store.create(NAME)
    writer.write(b"a pack")
    writer.end()
    writer.give_up()

    with pytest.raises(StoreError):
        writer.finish()
    wait_until(lambda: files_of(folder) == {}, "nothing to be left at the gateway")


def test_a_writer_that_stops_does_not_wait_for_a_link_that_hangs(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path / "store")
    make_repository(folder).close()
    with serving(Fleet.made(tmp_path / "fleet"), {"main": folder}) as served:
        relay = Relay(served.port)
        store = RemoteStore(f"proxyfleet://{HERE}:{relay.port}/main", served.proxy)  # as patient as can be
        with Repository.open(store, CREDENTIAL) as repository:
            writer = repository.begin_disk(vm_id=VM.vm_id, run="run-1", disk_key=KEY, fence=1, limits=SMALL)
            relay.wire = Wire.HUNG
            store_content(writer, noise(8))
            assert not writer.delivery.caught_up(0.1)
            ending = threading.Thread(target=writer.abort)
            ending.start()
            ending.join(120)
            assert not ending.is_alive()
            relay.wire = Wire.WHOLE
        relay.close()


def test_what_memory_has_no_room_for_goes_by_a_file_and_arrives_the_same(served: Served, folder: Path) -> None:
    store, content = served.store(), noise(80)
    store.room = Room(3 * PAYLOAD_BYTES)
    store.pace = Pacing(0)  # until all of them are made
    writers = [store.create(f"packs/ab/{number}") for number in range(3)]
    for writer in writers:
        for at in range(0, len(content), PAYLOAD_BYTES // 2 + 7):
            writer.write(content[at : at + PAYLOAD_BYTES // 2 + 7])
        writer.end()
    assert store.room.take() is None
    store.pace = None

    assert [writer.finish() for writer in writers] == [True, True, True]
    assert list(files_of(folder).values()) == [content] * 3
    assert len([buffer for _ in range(4) if (buffer := store.room.take())]) == 3, "all of it is given back"
