"""What a peer may ask for, and what becomes of requests that are wrong: refused by name, nothing left behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_worker.gateway.rights import ADDED_BY_PROXIES
from proxy_worker.link import server
from proxy_worker.link.errors import LinkRefusedError
from proxy_worker.link.frames import CHECKSUM_BYTES, PAYLOAD_BYTES, FrameError, framed, opened
from proxy_worker.link.messages import (
    SERVICE,
    Get,
    ListNames,
    Named,
    Prepare,
    Put,
    PutDone,
    RemoveLeftovers,
    Renew,
    Stat,
    TermsOf,
    decoded,
    encoded,
)
from proxy_worker.link.server import Limits
from proxy_worker.repository.store import ObjectNameError, StoreFullError, StoreReadOnlyError
from proxy_worker.repository.store.local import LocalStore
from tests.gateway.serving import Fleet, Served, bare_ask, bare_channel, bare_put, serving
from tests.repository.faulty_store import FaultyStore
from tests.system.live_fleet import wait_until

POINT = "points/vm/run"


def files_of(folder: Path) -> dict[str, bytes]:
    """By name, what the files of a folder hold; some may go or be renamed meanwhile."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def refusal(error: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    assert isinstance(error.value, grpc.Call)
    return error.value.code()


def test_a_proxy_overwrites_and_deletes_nothing(served: Served, folder: Path) -> None:
    store = served.store()
    store.put_if_absent(POINT, [b"a point"])
    served.store(served.keeper).replace("keys/a", [b"wrapped"])
    before = files_of(folder)

    assert not store.put_if_absent(POINT, [b"another"])
    for name in (POINT, "packs/ab/one", "keys/a", "ended/vm/run", "condemned/1"):
        with pytest.raises(StoreReadOnlyError, match=f"proxy proxy-1 may not delete {name}"):
            store.delete(name)
    with pytest.raises(LinkRefusedError, match="may not overwrite"):
        store.replace(POINT, [b"mine"])
    with pytest.raises(LinkRefusedError, match="may not write keys/a"):
        store.replace("keys/a", [b"mine"])
    with pytest.raises(LinkRefusedError, match="may not remove leftovers"):
        store.remove_leftovers(before=0)
    with pytest.raises(LinkRefusedError, match="may not make a repository"):
        store.prepare()
    assert files_of(folder) == before


@pytest.mark.parametrize(
    "name",
    ["ended/vm/run", "condemned/1", "config/2", "keys/mine", "damaged/a/b", "seals/a/b", "writers/x", "points/x"],
)
def test_a_proxy_adds_nothing_that_ends_points_or_changes_who_is_trusted(
    served: Served, folder: Path, name: str
) -> None:
    with pytest.raises(LinkRefusedError, match=f"may not write {name}"):
        served.store().put_if_absent(name, [b"x"])
    assert files_of(folder) == {}


def test_a_gateways_own_certificate_overwrites_wrapped_keys_only(served: Served) -> None:
    with pytest.raises(LinkRefusedError, match="objects are immutable"):
        served.store(served.keeper).replace(POINT, [b"another"])


def test_marks_are_removed_by_who_left_them_or_when_their_run_has_ended(served: Served, folder: Path) -> None:
    mark = "writers/vm/run/disk.1"
    store, other = served.store(), served.store(served.fleet.identity("proxy-2"))
    store.put_if_absent(mark, [b"x"])
    store.put_if_absent("readers/r", [b"x"])

    for name in (mark, "readers/r"):
        with pytest.raises(StoreReadOnlyError, match="their own marks only"):
            other.delete(name)
    assert set(files_of(folder)) == {mark, "readers/r"}
    store.delete("readers/r")
    other.put_if_absent(POINT, [b"a point"])
    other.delete(mark)
    assert set(files_of(folder)) == {POINT}


@pytest.mark.parametrize("name", ["../a/b", "a/../b", "/etc/passwd", "a/b\0", "packs/" + "x" * 100_000, "", "a"])
def test_names_that_lead_elsewhere_or_are_absurdly_long_are_refused(
    served: Served, name: str, folder: Path
) -> None:
    asks = {"Stat": Stat("main", name), "Delete": Named("main", name)}
    with bare_channel(served, served.proxy) as channel:
        for method, message in asks.items():
            with pytest.raises(grpc.RpcError, match="object-name") as error:
                bare_ask(channel, method, encoded(message))
            assert refusal(error) is grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.RpcError, match="object-name"):
            bare_put(channel, encoded(Put("main", name, 1)), framed(b"x"))
    with pytest.raises(ObjectNameError):
        served.store().get(name)
    assert files_of(folder) == {}


def _wrong_checksum(payload: bytes) -> bytes:
    return bytes(CHECKSUM_BYTES) + payload


@pytest.mark.parametrize(
    ("size_bytes", "frames", "code"),
    [
        (6, [_wrong_checksum(b"points")], grpc.StatusCode.DATA_LOSS),
        (6, [b"short"], grpc.StatusCode.DATA_LOSS),
        (10, [framed(b"points")], grpc.StatusCode.DATA_LOSS),
        (6, [framed(b"points"), framed(b"more")], grpc.StatusCode.DATA_LOSS),
        (-1, [], grpc.StatusCode.FAILED_PRECONDITION),
        (1 << 62, [], grpc.StatusCode.FAILED_PRECONDITION),
        (2 * PAYLOAD_BYTES, [framed(bytes(2 * PAYLOAD_BYTES))], grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["checksum", "no checksum", "truncated", "too long", "negative", "absurd", "frame too large"],
)
def test_a_body_that_is_not_as_announced_leaves_nothing(
    served: Served, folder: Path, size_bytes: int, frames: list[bytes], code: grpc.StatusCode
) -> None:
    with bare_channel(served, served.proxy) as channel:
        with pytest.raises(grpc.RpcError) as error:
            bare_put(channel, encoded(Put("main", POINT, size_bytes)), *frames)
        assert refusal(error) is code
    assert files_of(folder) == {}
    assert served.store().put_if_absent(POINT, [b"a point"])


def test_an_object_that_is_too_large_is_called_so(served: Served) -> None:
    with (
        bare_channel(served, served.proxy) as channel,
        pytest.raises(grpc.RpcError, match=r"object-size.*1099511627776 bytes"),
    ):
        bare_put(channel, encoded(Put("main", POINT, 1 << 40)))


def test_a_replayed_put_changes_nothing(served: Served, folder: Path) -> None:
    recorded = (encoded(Put("main", POINT, 5)), framed(b"point"))
    with bare_channel(served, served.proxy) as channel:
        assert decoded(bare_put(channel, *recorded), PutDone).created
        before = files_of(folder)
        assert not decoded(bare_put(channel, *recorded), PutDone).created
    assert files_of(folder) == before


@pytest.mark.parametrize(
    ("silence_s", "timeout_s", "code"),
    [(300, 1, grpc.StatusCode.DEADLINE_EXCEEDED), (0.5, None, grpc.StatusCode.CANCELLED)],
    ids=["by its own limit", "by the gateway's"],
)
def test_a_peer_that_says_nothing_more_loses_its_place_and_leaves_nothing(
    tmp_path: Path, folder: Path, silence_s: float, timeout_s: float | None, code: grpc.StatusCode
) -> None:
    silent = threading.Event()
    store = LocalStore(folder)
    store.prepare()

    def half() -> Iterator[bytes]:
        yield encoded(Put("main", POINT, 5))
        yield framed(b"po")
        silent.wait()

    limits = Limits(silence_s=silence_s)
    with serving(Fleet.made(tmp_path / "fleet"), {"main": store}, limits=limits) as served:
        with bare_channel(served, served.proxy) as channel:
            call: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(f"/{SERVICE}/Put")
            with pytest.raises(grpc.RpcError) as error:
                call(half(), timeout=timeout_s)
            silent.set()
        assert refusal(error) is code
        wait_until(lambda: files_of(folder) == {}, "what it sent to be dropped")
        assert served.store().put_if_absent(POINT, [b"a point"])


def test_a_put_may_last_as_long_as_it_needs(served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five packs at once over a link of a Mbit/s take the better part of an hour."""
    monkeypatch.setattr(server, "LONGEST_CALL_S", -10.0)
    with bare_channel(served, served.proxy) as channel:
        with pytest.raises(grpc.RpcError, match="at most"):
            bare_ask(channel, "Stat", encoded(Stat("main", POINT)))
        put = bare_put(channel, encoded(Put("main", POINT, 5)), framed(b"point"), timeout_s=None)
    assert decoded(put, PutDone).created
    store = served.store()
    assert store.put_if_absent("index/a", [b"x"])
    assert store.get(POINT) == b"point"


def test_a_full_disk_at_the_gateway_is_told_and_nothing_half_stays(tmp_path: Path) -> None:
    local = LocalStore(tmp_path / "store")
    local.prepare()
    full = FaultyStore(local, stop_at=0, error=StoreFullError, only_writes=True)
    with serving(Fleet.made(tmp_path / "fleet"), {"main": full}) as served:
        writer = served.store().create("packs/ab/one")
        writer.write(bytes(3 * PAYLOAD_BYTES))
        with pytest.raises(StoreFullError):
            writer.finish()
        full.stop_at = None
        assert served.store().put_if_absent("packs/ab/one", [b"room again"])
    assert set(files_of(tmp_path / "store")) == {"packs/ab/one"}


MESSAGES = st.one_of(
    st.binary(max_size=64),
    st.builds(
        encoded,
        st.one_of(
            st.builds(Put, st.sampled_from(["main", "x", ""]), st.text(max_size=20), st.integers(-5, 1 << 40)),
            st.builds(
                Get, st.just("main"), st.text(max_size=20), st.integers(-9, 9), st.none() | st.integers(-9, 9)
            ),
            st.builds(Get, st.just("main"), st.just(POINT), st.integers(-9, 9), st.none() | st.integers(-9, 9)),
            st.builds(Stat, st.just("main"), st.text(max_size=20), st.booleans()),
            st.builds(Named, st.just("main"), st.sampled_from([POINT, "writers/vm/run/d.1", "packs/../x"])),
            st.builds(ListNames, st.just("main"), st.text(max_size=8)),
            st.builds(RemoveLeftovers, st.just("main"), st.floats()),
            st.builds(Prepare, st.just("main")),
            st.builds(Renew, st.just("main"), st.lists(st.text(max_size=8) | st.just("packs/ab/one")).map(tuple)),
            st.builds(TermsOf, st.just("main"), st.lists(st.text(max_size=8)).map(tuple)),
        ),
    ),
)
FRAMES = st.lists(st.binary(max_size=32) | st.binary(max_size=32).map(framed), max_size=3)
TOLD = {
    grpc.StatusCode.OK,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.DATA_LOSS,
}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("fuzzed")
    store = LocalStore(folder / "store")
    store.prepare()
    with serving(Fleet.made(folder / "fleet"), {"main": store}) as served:
        served.store().put_if_absent(POINT, [b"a point"])
        with bare_channel(served, served.proxy) as channel:
            yield channel, folder


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(
                ["Put", "Get", "Stat", "List", "Delete", "Prepare", "RemoveLeftovers", "Renew", "TermsOf", "Keep"]
            ),
            MESSAGES,
            FRAMES,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_a_proxy_sends_is_answered_and_harms_nothing(
    fuzzed: tuple[grpc.Channel, Path], calls: list[tuple[str, bytes, list[bytes]]]
) -> None:
    channel, folder = fuzzed
    for method, message, frames in calls:
        path = f"/proxyfleet.Gateway/{method}"
        requests = iter([message, *(frames if method == "Put" else [])])
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        answer = call(requests, timeout=60)
        try:
            list(answer)
        except grpc.RpcError:
            assert answer.code() in TOLD, (method, answer.details())

    held = files_of(folder / "store")
    assert held.pop(POINT) == b"a point"
    assert {name.partition("/")[0] for name in held} <= set(ADDED_BY_PROXIES)
    assert not set(files_of(folder)) - {name for name in files_of(folder) if name.startswith(("store/", "fleet/"))}


@given(st.binary(max_size=4096), st.data())
def test_a_flipped_bit_in_a_frame_is_found(payload: bytes, data: st.DataObject) -> None:
    frame = bytearray(framed(payload))
    assert bytes(opened(bytes(frame))) == payload
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameError):
        opened(bytes(frame))
