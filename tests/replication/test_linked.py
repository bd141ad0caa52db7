"""A disk sent to another proxy: only what is missing crosses, cuts are waited out, and nobody else gets in."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.link.client import Patience
from proxy_worker.link.errors import LinkCertificateError, LinkRefusedError, LinkUnavailableError
from proxy_worker.mover.configuration import ConfigurationFile
from proxy_worker.mover.effort import Effort
from proxy_worker.mover.pacing import Pacing
from proxy_worker.replication.blocks import BLOCK_BYTES, digest_of
from proxy_worker.replication.errors import ReplicaTooLargeError, SessionEndedError, SourceAbsentError
from proxy_worker.replication.far_end import Packed
from proxy_worker.replication.messages import BlockHead, Open
from proxy_worker.repository.codec import Codec, Compressor
from tests.gateway.serving import Fleet
from tests.mover.disks import make_disk
from tests.replication.linking import Listening, listens, shown
from tests.replication.sites import Target, request, send
from tests.surviving.relay import Wire

BLOCKS = 96
HANDSHAKES_BYTES = 6 * 8192
"""Of five streams and the connection that they are tried out with: nothing to a disk, but much to this one."""
PATIENT_FOR_A_MOMENT = Patience(first_pause_s=0.05, longest_pause_s=0.05, in_all_s=0.1, first_contact_s=0.1)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet.made(tmp_path_factory.mktemp("fleet"))


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target.made(tmp_path / "dr")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """24 MiB, every block of which compresses to about a half."""
    noise = random.Random(1)
    half = BLOCK_BYTES // 2
    content = b"".join(noise.randbytes(half) + bytes(half) for _ in range(BLOCKS))
    return make_disk(tmp_path / "disk.raw", len(content), [(0, content)])


@pytest.fixture
def listening(fleet: Fleet, target: Target) -> Iterator[Listening]:
    with listens(fleet, target) as listening:
        yield listening


def test_a_replica_is_equal_and_both_ends_agree_on_its_root(
    disk: Path, target: Target, listening: Listening
) -> None:
    vmx = ConfigurationFile(name="web01.vmx", content=b'displayName = "web01"\n')

    result = send(disk, listening.end(), request("run-1"), configuration=[vmx])

    listening.received.result(120)
    assert target.flat.read_bytes() == disk.read_bytes()
    assert listening.reception.sealed_root == result.root
    assert (target.folder.incoming / "web01.vmx").read_bytes() == vmx.content
    assert result.report.stored_bytes < 0.6 * disk.stat().st_size


def test_a_second_run_sends_no_more_than_what_changed_takes_compressed(
    disk: Path, target: Target, fleet: Fleet
) -> None:
    with listens(fleet, target) as first:
        send(disk, first.end(), request("run-1"))
    noise, changed = random.Random(2), range(0, BLOCKS, 16)
    with disk.open("r+b") as file:
        for block in changed:  # 4% of the disk's 4 KiB pages, in blocks of their own
            file.seek(block * BLOCK_BYTES + 8192)
            file.write(noise.randbytes(4096))
    content = disk.read_bytes()
    blocks = [content[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] for block in changed]
    compressed = sum(len(Compressor(CompressionLevel.OPTIMAL).compress(block)[1]) for block in blocks)

    crossed: list[int] = []
    with listens(fleet, target) as second:
        second.relay.overheard = lambda data: crossed.append(len(data))
        result = send(disk, second.end(), request("run-2"))

    assert target.flat.read_bytes() == content
    assert result.report.stored_bytes == compressed
    assert sum(crossed) <= 1.05 * compressed + HANDSHAKES_BYTES


def test_a_cut_in_the_middle_is_waited_out_and_nothing_is_sent_twice_but_what_was_in_flight(
    disk: Path, target: Target, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = listening.end(streams=2)
    writes = 0
    write = end.write

    def cut_in_the_middle(blocks: list[Packed]) -> None:
        nonlocal writes
        writes += 1
        if writes in {3, 6}:
            listening.relay.wire = Wire.CUT
            listening.relay.wire = Wire.WHOLE
        write(blocks)

    monkeypatch.setattr(end, "write", cut_in_the_middle)
    result = send(disk, end, request("run-1", streams=2))

    listening.received.result(120)
    assert target.flat.read_bytes() == disk.read_bytes()
    assert listening.reception.sealed_root == result.root
    in_flight = 2 * 2 * 64 * BLOCK_BYTES
    assert listening.reception.done.written_bytes <= disk.stat().st_size + in_flight


def test_a_link_that_stays_cut_is_given_up_and_the_next_session_sends_only_the_rest(
    disk: Path, target: Target, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listens(fleet, target) as first:
        end = first.end(streams=1, patience=PATIENT_FOR_A_MOMENT)
        write = end.write

        def cut_after_some(blocks: list[Packed]) -> None:
            if first.reception.done.written_bytes > 4 * BLOCK_BYTES:
                first.relay.wire = Wire.CUT
            write(blocks)

        monkeypatch.setattr(end, "write", cut_after_some)
        with pytest.raises(LinkUnavailableError, match="proxy proxy-dr at"):
            send(disk, end, request("run-1", streams=1))
        done = first.reception.done.written_bytes
        assert done < disk.stat().st_size

    with listens(fleet, target) as second:
        send(disk, second.end(), request("run-1"))

    assert target.flat.read_bytes() == disk.read_bytes()
    assert second.reception.done.written_bytes == disk.stat().st_size - done
    assert second.reception.done.compared_bytes == 0


def test_a_source_that_stays_away_ends_the_session_by_name(target: Target, fleet: Fleet) -> None:
    with (
        listens(fleet, target, absent_after_s=0.1) as listening,
        pytest.raises(SourceAbsentError, match="nothing was heard of its source"),
    ):
        listening.received.result(120)


def test_a_refusal_reaches_the_source_by_name_and_ends_the_target(
    disk: Path, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_worker.replication.folder.ReplicaFolder.free_bytes", 0)

    with pytest.raises(ReplicaTooLargeError, match="doesn't fit into datastore ds-dr"):
        send(disk, listening.end(), request("run-1"))
    with pytest.raises(ReplicaTooLargeError):
        listening.received.result(120)


def test_only_the_source_gets_in_and_only_in_its_session(listening: Listening, fleet: Fleet) -> None:
    asked = Open("session", BLOCK_BYTES, 0, None)

    with pytest.raises(LinkRefusedError, match="proxy proxy-9 may not write here"):
        listening.end(shown(fleet, "proxy-9")).open(asked)
    with pytest.raises(LinkCertificateError):
        listening.end(fleet.expired("proxy-8")).open(asked)
    with pytest.raises(SessionEndedError, match="listens for another"):
        listening.end(session="another").open(Open("another", BLOCK_BYTES, 0, None))


def test_a_target_is_known_by_its_name_not_by_where_it_answers(listening: Listening) -> None:
    with pytest.raises(LinkCertificateError, match=r"hostname mismatch.*scheduler pki issue proxy-2 --role proxy"):
        listening.end(proxy="proxy-2").open(Open("session", BLOCK_BYTES, 0, None))


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(BlockHead(0, b"\1" * 16, Codec.PLAIN, BLOCK_BYTES), id="another digest"),
        pytest.param(BlockHead(0, b"\1" * 16, Codec.ZSTD, BLOCK_BYTES), id="no zstd"),
        pytest.param(BlockHead(0, b"\1" * 16, Codec.PLAIN, 2 * BLOCK_BYTES), id="longer than a block"),
        pytest.param(BlockHead(0, bytes(16), Codec.PLAIN, BLOCK_BYTES), id="zeros with data"),
        pytest.param(BlockHead(9, b"\1" * 16, Codec.PLAIN, BLOCK_BYTES), id="beyond the disk"),
        pytest.param(BlockHead(-1, b"\1" * 16, Codec.PLAIN, BLOCK_BYTES), id="before the disk"),
    ],
)
def test_what_a_source_announces_wrongly_is_never_written(
    target: Target, listening: Listening, head: BlockHead
) -> None:
    end = listening.end(patience=PATIENT_FOR_A_MOMENT)
    end.open(Open("session", 4 * BLOCK_BYTES, 0, None))

    with pytest.raises(LinkUnavailableError):
        end.write([Packed(head, b"\2" * BLOCK_BYTES)])

    assert target.flat.read_bytes() == bytes(4 * BLOCK_BYTES)


def test_what_is_sent_keeps_to_its_pace(disk: Path, target: Target, listening: Listening) -> None:
    pacing = Pacing(64 << 20)

    result = send(disk, listening.end(), request("run-1"), pacing=pacing)

    assert pacing.use().spent_bytes == result.report.stored_bytes
    assert target.flat.read_bytes() == disk.read_bytes()


class Hardest(Effort):
    """Finds at once that there is time for the highest level."""

    def look(self, now_s: float, busy_s: float, waiting: int) -> None:
        assert now_s > busy_s >= 0 <= waiting
        self._compressor.level = CompressionLevel.EXTREME


def test_how_hard_to_compress_may_change_on_the_way(disk: Path, target: Target, listening: Listening) -> None:
    end = listening.end(level=CompressionLevel.AUTO)
    effort = Hardest(end.compressor, CompressionLevel.AUTO, threads=2, now_s=0)

    send(disk, end, request("run-1"), effort=effort)

    assert end.compressor.level is CompressionLevel.EXTREME
    assert target.flat.read_bytes() == disk.read_bytes()


def test_a_digest_is_of_the_targets_own_key(listening: Listening) -> None:
    opened = listening.end().open(Open("session", BLOCK_BYTES, 0, None))

    assert opened.key == listening.key
    assert digest_of(opened.key, b"block") != digest_of(bytes(32), b"block")
