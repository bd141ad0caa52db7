"""What a target does with whatever a source may say, in whatever order."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.link.admission import Peer, Role
from proxy_worker.link.frames import FrameError, framed
from proxy_worker.link.messages import decoded, encoded
from proxy_worker.replication.blocks import BLOCK_BYTES, ZERO, digest_of, root_bytes, share
from proxy_worker.replication.errors import ReplicaDiffersError, ReplicaUnwritableError, SessionEndedError
from proxy_worker.replication.messages import (
    BlockHead,
    Bye,
    Digests,
    Haves,
    KeepFile,
    Open,
    Seal,
    Sealed,
    Write,
)
from proxy_worker.replication.receiving import Desk
from proxy_worker.repository.codec import Codec
from tests.replication.sites import PLACE, Target

SOURCE = Peer("proxy-1", Role.PROXY)
BLOCKS = 3
FORESEEN = (FrameError, msgspec.MsgspecError, ProxyfleetError)
OPEN = Open("session", BLOCKS * BLOCK_BYTES, 0, None)

sessions = st.sampled_from(["session", "session", "session", "another", ""])
numbers = st.integers(-2, BLOCKS + 1)
digests = st.sampled_from([ZERO, b"", b"\1" * 16, b"\xff" * 16])
contents = st.sampled_from([b"", b"\0" * BLOCK_BYTES, b"\1" * BLOCK_BYTES, b"\2" * 100])
heads = st.builds(
    BlockHead, numbers, digests, st.integers(0, 2), st.sampled_from([-1, 0, 100, BLOCK_BYTES, 2 * BLOCK_BYTES])
)
names = st.sampled_from(["web01.vmx", "../escape", ".hidden", "a/b", "x" * 300, "line\nbreak", ""])
sizes = st.sampled_from([0, 1, -5, BLOCKS * BLOCK_BYTES, 1 << 62])
pieces = st.lists(contents)
said = st.one_of(
    st.tuples(st.just("open"), st.builds(Open, sessions, sizes, numbers, st.none())),
    st.tuples(st.just("haves"), st.builds(Haves, sessions, numbers, st.integers(-1, 2000))),
    st.tuples(st.just("seal"), st.builds(Seal, sessions, st.just("run-1"), st.binary(max_size=16))),
    st.tuples(st.just("bye"), st.builds(Bye, sessions)),
    st.tuples(st.just("write"), st.builds(Write, sessions, st.lists(heads, max_size=3).map(tuple)), pieces),
    st.tuples(st.just("keep_file"), st.builds(KeepFile, sessions, names, st.integers(-1, 200)), pieces),
)


def say(desk: Desk, method: str, message: msgspec.Struct, pieces: list[bytes] | None = None) -> bytes:
    call = getattr(desk, method)
    if pieces is None:
        return bytes(call(SOURCE, encoded(message)))
    return bytes(call(SOURCE, iter([encoded(message), *map(framed, pieces)])))


@settings(max_examples=40, deadline=None)
@given(st.lists(said, max_size=8), st.binary(max_size=20))
def test_whatever_is_said_is_done_or_refused_and_never_written_anywhere_else(
    tmp_path_factory: pytest.TempPathFactory, conversation: list[tuple[str, msgspec.Struct]], nonsense: bytes
) -> None:
    folder = tmp_path_factory.mktemp("target")
    target = Target.made(folder)
    with target.reception() as (reception, key):
        desk = Desk(reception, key, session="session", source="proxy-1")
        for one in conversation:
            try:
                say(desk, *one)
            except FORESEEN:
                continue
        with pytest.raises(FORESEEN):
            desk.open(SOURCE, nonsense)

    assert {path.name for path in folder.iterdir()} <= {"ds-dr", "state"}
    assert {path.name for path in target.root.iterdir()} == {PLACE.folder}
    kept = {path.name for path in target.folder.incoming.glob("*")}
    assert kept <= {"web01.vmx"}
    if target.flat.exists():
        assert not target.flat.read_bytes().strip(b"\0"), "no block here has the digest that it is announced with"


def test_blocks_are_written_once_they_have_their_digest_and_the_seal_ends_it(tmp_path: Path) -> None:
    target = Target.made(tmp_path)
    with target.reception() as (reception, key):
        desk = Desk(reception, key, session="session", source="proxy-1")
        say(desk, "open", OPEN)
        content = b"\7" * BLOCK_BYTES
        digest = digest_of(key, content)
        assert decoded(say(desk, "haves", Haves("session", 0, BLOCKS)), Digests).digests == ZERO * BLOCKS

        write = Write("session", (BlockHead(1, digest, Codec.PLAIN, BLOCK_BYTES),))
        say(desk, "write", write, [content[:1000], content[1000:]])
        with pytest.raises(FrameError, match="before its disk is sealed"):
            say(desk, "bye", Bye("session"))
        seal = Seal("session", "run-1", root_bytes(share(1, digest)))
        assert decoded(say(desk, "seal", seal), Sealed).written_bytes == BLOCK_BYTES
        assert say(desk, "seal", seal) == say(desk, "seal", seal)
        with pytest.raises(SessionEndedError):
            say(desk, "write", write, [content])
        say(desk, "bye", Bye("session"))

        assert desk.left.is_set()
    assert target.flat.read_bytes() == bytes(BLOCK_BYTES) + content + bytes(BLOCK_BYTES)


def test_a_disk_that_is_not_what_its_source_has_is_never_sealed_and_is_compared_next_time(tmp_path: Path) -> None:
    target = Target.made(tmp_path)
    with target.reception() as (reception, key):
        desk = Desk(reception, key, session="session", source="proxy-1")
        say(desk, "open", OPEN)
        say(desk, "haves", Haves("session", 0, BLOCKS))
        with pytest.raises(ReplicaDiffersError, match="the digests of both ends don't agree"):
            say(desk, "seal", Seal("session", "run-1", b"\1" * 16))
        assert isinstance(desk.failure, ReplicaDiffersError)

    with target.reception() as (reception, _):
        opened = reception.open(Open("session", BLOCKS * BLOCK_BYTES, 0, "run-1"))
    assert opened.root is None


def test_a_folder_that_is_a_link_to_another_place_is_refused(tmp_path: Path) -> None:
    target = Target.made(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (target.root / PLACE.folder).symlink_to(elsewhere)

    with pytest.raises(ReplicaUnwritableError, match="is a link to another place"), target.reception():
        pass

    assert not (elsewhere / ".replica" / "scsi0-0.session").exists()
