"""RPC: calls of numbered procedures of numbered programs, and their answers. Source: RFC 5531."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from proxy_worker.export.nfs.xdr import Reading, Writing, XdrError

Procedure = Callable[[Reading], bytes]
"""Reads its arguments, raising `XdrError` if they aren't any, and answers with its result."""
_CALL, _REPLY = 0, 1
_RPC_VERSION: Final = 2
_LONGEST_AUTH: Final = 400


class _Accepted(IntEnum):
    SUCCESS = 0
    NO_PROGRAM = 1
    NO_VERSION = 2
    NO_PROCEDURE = 3
    GARBAGE = 4
    BROKEN = 5


@dataclass(frozen=True, slots=True)
class Program:
    """A program in one version."""

    number: int
    version: int
    procedures: Mapping[int, Procedure]


def answer(message: memoryview, programs: Sequence[Program]) -> bytes | None:
    """The answer to a call; None for something that is none, which gets no answer."""
    call = Reading(message)
    try:
        xid, kind, rpc_version = call.u32(), call.u32(), call.u32()
        if kind != _CALL:
            return None
        if rpc_version != _RPC_VERSION:
            return Writing().u32(xid, _REPLY, 1, 0, _RPC_VERSION, _RPC_VERSION).done()
        wanted = call.u32(), call.u32(), call.u32()
        for _ in ("credential", "verifier"):
            call.u32()
            call.opaque(_LONGEST_AUTH)
    except XdrError:
        return None
    return Writing().u32(xid, _REPLY, 0, 0, 0).done() + _accepted(wanted, call, programs)


def _accepted(wanted: tuple[int, int, int], call: Reading, programs: Sequence[Program]) -> bytes:
    number, version, procedure = wanted
    versions = {program.version: program for program in programs if program.number == number}
    if not versions:
        return Writing().u32(_Accepted.NO_PROGRAM).done()
    if version not in versions:
        return Writing().u32(_Accepted.NO_VERSION, min(versions), max(versions)).done()
    perform = versions[version].procedures.get(procedure)
    if perform is None:
        return Writing().u32(_Accepted.NO_PROCEDURE).done()
    try:
        return Writing().u32(_Accepted.SUCCESS).done() + perform(call)
    except XdrError:
        return Writing().u32(_Accepted.GARBAGE).done()


def broken(message: memoryview) -> bytes:
    """The answer to a call that a defect of this program kept from being done: the client must hear of it."""
    return bytes(message[:4]) + Writing().u32(_REPLY, 0, 0, 0, _Accepted.BROKEN).done()


def nothing(_: Reading) -> bytes:
    """The procedure that every program has: it does nothing."""
    return b""
