"""NFS version 3: what clients do with the files of shares. Each procedure is one of RFC 1813, in its words.

Everybody who knows a share's name may do everything in it: modes are kept for clients, and not looked at.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from typing import Final

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.export.nfs.node import Node, Refused, Wanted, read_name, read_wanted
from proxy_worker.export.nfs.protocol import (
    LONGEST_HANDLE,
    LONGEST_NAME,
    LONGEST_TRANSFER,
    NFS,
    NFS_VERSION,
    Create,
    Property,
    Stable,
    Status,
    put_attributes,
    put_optional,
    status_of,
)
from proxy_worker.export.nfs.rpc import Procedure, Program, nothing
from proxy_worker.export.nfs.share import TOKEN_BYTES, Shares, StaleError, make_durable
from proxy_worker.export.nfs.xdr import Reading, Writing

logger = logging.getLogger(__name__)

_VERIFIER: Final = 8
_ROOM: Final = 512
"""What an answer takes besides entries, and an entry besides its name, at most."""


class Files:
    """The program, over the shares there are."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._verifier = secrets.token_bytes(_VERIFIER)
        """Another one after a restart: clients then write again what they haven't committed."""

    def program(self) -> Program:
        """What the server offers. After a failure come as many absent attributes as the procedure has."""
        return Program(
            NFS,
            NFS_VERSION,
            {
                0: nothing,
                1: _answering(self._get_attributes, absent=0),
                2: _answering(self._set_attributes, absent=2),
                3: _answering(self._look_up, absent=1),
                4: _answering(self._access, absent=1),
                5: _refusing(absent=1),
                6: _answering(self._read, absent=1),
                7: _answering(self._write, absent=2),
                8: _answering(self._create, absent=2),
                9: _answering(self._make_folder, absent=2),
                10: _refusing(absent=2),
                11: _refusing(absent=2),
                12: _answering(self._remove, absent=2),
                13: _answering(self._remove_folder, absent=2),
                14: _answering(self._rename, absent=4),
                15: _refusing(absent=3),
                16: _answering(self._read_folder, absent=1),
                17: _answering(self._read_folder_plus, absent=1),
                18: _answering(self._file_system_space, absent=1),
                19: _answering(self._file_system_facts, absent=1),
                20: _answering(self._path_facts, absent=1),
                21: _answering(self._commit, absent=2),
            },
        )

    def _node(self, arguments: Reading) -> Node:
        handle = bytes(arguments.opaque(LONGEST_HANDLE))
        if len(handle) != TOKEN_BYTES + 8:
            raise Refused(Status.BADHANDLE)
        share = self._shares(handle[:TOKEN_BYTES])
        if share is None:
            raise StaleError
        return Node(share, share.path_of(int.from_bytes(handle[TOKEN_BYTES:], "big")))

    def _get_attributes(self, arguments: Reading) -> Writing:
        node = self._node(arguments)
        return put_attributes(_ok(), node.look(), node.file_system)

    def _set_attributes(self, arguments: Reading) -> Writing:
        node = self._node(arguments)
        wanted = read_wanted(arguments)
        if arguments.u32():
            guard = arguments.u32(), arguments.u32()
            if divmod(node.look().st_ctime_ns, 1_000_000_000) != guard:
                raise Refused(Status.NOT_SYNC)
        self._apply(node, wanted)
        return _changed(_ok(), node)

    def _apply(self, node: Node, wanted: Wanted) -> None:
        disk = node.share.disk(node.path)
        if wanted.size is not None and (disk is None or wanted.size != disk.size_bytes):
            if disk is not None:
                raise Refused(Status.INVAL)  # a restore point's disk has its size
            os.truncate(node.path, wanted.size)
        if wanted.mode is not None:
            # Whatever a client sets, this process has to be able to use it.
            node.path.chmod(wanted.mode & 0o7777 | (stat.S_IRWXU if node.path.is_dir() else 0o600))
        if wanted.times != (None, None):
            found = node.look()
            accessed, modified = wanted.times
            now = (
                found.st_atime_ns if accessed is None else accessed,
                found.st_mtime_ns if modified is None else modified,
            )
            os.utime(node.path, ns=now, follow_symlinks=False)

    def _look_up(self, arguments: Reading) -> Writing:
        folder = self._node(arguments)
        node = folder.child(read_name(arguments))
        found = node.look()
        answer = _ok().opaque(node.handle(found))
        put_optional(answer, found, node.file_system)
        return put_optional(answer, folder.try_to_look(), folder.file_system)

    def _access(self, arguments: Reading) -> Writing:
        node = self._node(arguments)
        return put_optional(_ok(), node.look(), node.file_system).u32(arguments.u32() & 0x3F)

    def _read(self, arguments: Reading) -> Writing:
        node = self._node(arguments)
        offset, count = arguments.u64(), arguments.u32()
        data, end = node.share.read(node.path, offset, min(count, LONGEST_TRANSFER))
        answer = put_optional(_ok(), node.try_to_look(), node.file_system)
        return answer.u32(len(data), int(end)).opaque(data)

    def _write(self, arguments: Reading) -> Writing:
        node = self._node(arguments)
        offset, count, stable = arguments.u64(), arguments.u32(), arguments.u32()
        data = arguments.opaque(LONGEST_TRANSFER)[:count]
        node.share.write(node.path, offset, data)
        if stable != Stable.UNSTABLE:
            node.share.sync(node.path)
        done = Stable.UNSTABLE if stable == Stable.UNSTABLE else Stable.FILE_SYNC
        return _changed(_ok(), node).u32(len(data), done).fixed(self._verifier)

    def _commit(self, arguments: Reading) -> Writing:
        node = self._node(arguments)
        node.share.sync(node.path)
        return _changed(_ok(), node).fixed(self._verifier)

    def _create(self, arguments: Reading) -> Writing:
        folder = self._node(arguments)
        node = folder.new_child(read_name(arguments))
        if node.share.disk(node.path) and node.try_to_look() is None:
            raise Refused(Status.ACCES)  # a disk that was removed doesn't come back
        how = arguments.u32()
        if how == Create.EXCLUSIVE:
            self._create_exclusively(node, bytes(arguments.fixed(_VERIFIER)))
            return self._made(folder, node)
        wanted = read_wanted(arguments)
        if how == Create.UNCHECKED and node.try_to_look() is not None:
            self._apply(node, wanted)
            return self._made(folder, node)
        os.close(os.open(node.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self._apply(node, wanted)
        return self._made(folder, node)

    def _create_exclusively(self, node: Node, verifier: bytes) -> None:
        """Where it exists already it may be this client's own, whose answer was lost: the times tell."""
        words = (int.from_bytes(verifier[:4], "big") & 0x7FFFFFFF, int.from_bytes(verifier[4:], "big") & 0x7FFFFFFF)
        try:
            os.close(os.open(node.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            found = node.look()
            if (int(found.st_atime), int(found.st_mtime)) != words:
                raise
            return
        os.utime(node.path, words)

    def _make_folder(self, arguments: Reading) -> Writing:
        folder = self._node(arguments)
        node = folder.new_child(read_name(arguments))
        wanted = read_wanted(arguments)
        node.path.mkdir(0o700)
        self._apply(node, wanted)
        return self._made(folder, node)

    def _made(self, folder: Node, node: Node) -> Writing:
        make_durable(folder.path)
        found = node.look()
        answer = _ok().u32(1).opaque(node.handle(found))
        return _changed(put_optional(answer, found, node.file_system), folder)

    def _remove(self, arguments: Reading) -> Writing:
        folder = self._node(arguments)
        folder.new_child(read_name(arguments)).path.unlink()
        make_durable(folder.path)
        return _changed(_ok(), folder)

    def _remove_folder(self, arguments: Reading) -> Writing:
        folder = self._node(arguments)
        folder.new_child(read_name(arguments)).path.rmdir()
        make_durable(folder.path)
        return _changed(_ok(), folder)

    def _rename(self, arguments: Reading) -> Writing:
        folder = self._node(arguments)
        node = folder.new_child(read_name(arguments))
        to_folder = self._node(arguments)
        target = to_folder.new_child(read_name(arguments))
        if node.share is not target.share or node.share.disk(node.path) or target.share.disk(target.path):
            raise Refused(Status.ACCES)  # a disk is known by its name
        node.path.rename(target.path)
        make_durable(to_folder.path)
        make_durable(folder.path)
        return _changed(_changed(_ok(), folder), to_folder)

    def _read_folder(self, arguments: Reading) -> Writing:
        folder = self._node(arguments)
        cookie = arguments.u64()
        arguments.fixed(_VERIFIER)
        return self._entries(folder, cookie, arguments.u32(), plus=False)

    def _read_folder_plus(self, arguments: Reading) -> Writing:
        folder = self._node(arguments)
        cookie = arguments.u64()
        arguments.fixed(_VERIFIER)
        arguments.u32()
        return self._entries(folder, cookie, arguments.u32(), plus=True)

    def _entries(self, folder: Node, cookie: int, room: int, *, plus: bool) -> Writing:
        """In the order of inodes, which are the cookies: what goes meanwhile makes no other entry be left out."""
        answer = put_optional(_ok(), folder.look(), folder.file_system).fixed(bytes(_VERIFIER))
        room = min(room, LONGEST_TRANSFER) - _ROOM
        for place, name, found in sorted(_listed(folder)):
            if place <= cookie:
                continue
            room -= len(os.fsencode(name)) + (_ROOM if plus else 32)
            if room < 0:
                return answer.u32(0, 0)
            answer.u32(1).u64(found.st_ino).opaque(os.fsencode(name)).u64(place)
            if plus:
                put_optional(answer, found, folder.file_system).u32(1).opaque(folder.handle(found))
        return answer.u32(0, 1)

    def _file_system_space(self, arguments: Reading) -> Writing:
        node = self._node(arguments)
        space = os.statvfs(node.path)
        answer = put_optional(_ok(), node.look(), node.file_system)
        answer.u64(*(blocks * space.f_frsize for blocks in (space.f_blocks, space.f_bfree, space.f_bavail)))
        return answer.u64(space.f_files, space.f_ffree, space.f_favail).u32(0)

    def _file_system_facts(self, arguments: Reading) -> Writing:
        node = self._node(arguments)
        answer = put_optional(_ok(), node.look(), node.file_system)
        for multiple in (4096, 4096):
            answer.u32(LONGEST_TRANSFER, LONGEST_TRANSFER, multiple)
        answer.u32(64 << 10).u64((1 << 63) - 1).u32(0, 1)
        return answer.u32(Property.HOMOGENEOUS | Property.CAN_SET_TIME)

    def _path_facts(self, arguments: Reading) -> Writing:
        node = self._node(arguments)
        return put_optional(_ok(), node.look(), node.file_system).u32(1, LONGEST_NAME, 1, 1, 0, 1)


def _listed(folder: Node) -> Iterator[tuple[int, str, os.stat_result]]:
    """What a folder holds: the cookie after each entry, its name, and what it is."""
    for place, name in ((1, "."), (2, "..")):
        yield place, name, folder.child(name).look()
    for path in folder.path.iterdir():
        found = folder.child(path.name).try_to_look()
        if found is not None:
            yield found.st_ino + 2, path.name, found


def _ok() -> Writing:
    return Writing().u32(Status.OK)


def _changed(answer: Writing, node: Node) -> Writing:
    """`wcc_data`, without what was before."""
    return put_optional(answer.u32(0), node.try_to_look(), node.file_system)


def _answering(perform: Callable[[Reading], Writing], *, absent: int) -> Procedure:
    def answer(arguments: Reading) -> bytes:
        try:
            return perform(arguments).done()
        except Refused as refused:
            status = refused.status
        except StaleError:
            status = Status.STALE
        except OSError as error:
            status = status_of(error)
            if status is Status.IO:
                logger.warning("a client's request failed: %s", error)
        except ProxyfleetError as error:
            status = Status.JUKEBOX if error.retryable else Status.IO
            logger.warning("a client's request failed: %s", error)
        return Writing().u32(status, *([0] * absent)).done()

    return answer


def _refusing(*, absent: int) -> Procedure:
    return lambda _: Writing().u32(Status.NOTSUPP, *([0] * absent)).done()
