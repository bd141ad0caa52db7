"""A store in S3-compatible object storage, through obstore.

Objects are created by PUT with `If-None-Match: *`, which a server must honour: `prepare` tries it out. Packs, whose
names are random, are spooled to a file without a name first and sent in parts, so that nobody sees half of one and
memory stays flat. Uploads that a crash leaves unfinished have no names and can't be listed here: let a lifecycle
rule of the bucket end them (`AbortIncompleteMultipartUpload`).
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from proxy_worker.contract.errors import ConfigurationError, StoreError
from proxy_worker.repository.store import (
    Buffer,
    ObjectNotFoundError,
    StoreReadOnlyError,
    checked_name,
    checked_prefix,
    is_object_name,
)
from proxy_worker.repository.store.locks import LOCKED_PREFIXES, ObjectLock
from proxy_worker.repository.store.object_locks import BucketLocks
from proxy_worker.repository.store.retrying import persistently
from proxy_worker.repository.store.tally import RequestTally
from proxy_worker.repository.store.versions import Bucket, Versions

if TYPE_CHECKING:
    from obstore.store import RetryConfig

_PART_BYTES: Final = 8 << 20
_PARTS_AT_ONCE: Final = 2
_BEGIN_AND_END: Final = 2
"""Requests of an upload in parts, beside its parts."""
_PAGE: Final = 1000
"""Names that a request for a listing returns at most."""
_DELETE_REFUSED: Final = "(code: AccessDenied)"
"""Deletes go out as requests for several objects: what became of each is in the answer, not in its status."""
_TIMEOUT: Final = timedelta(seconds=60)
_RETRIES: Final = 8
_OPTIONS: Final = {"endpoint", "region", "virtual_hosted_style"}


class StoreUrlError(ConfigurationError):
    """A URL that no object store can be reached by."""


class StoreUnfitError(StoreError):
    """An object store that doesn't do what a repository rests on."""

    retryable = False


class ObjectStore:
    """Objects of a bucket whose keys begin with a prefix. Implements `LockableStore`."""

    locks: BucketLocks | None = None

    def __init__(self, url: str, *, access_key: tuple[str, str] | None = None) -> None:
        """`url`: `s3://BUCKET/PREFIX?endpoint=https://host:port&region=NAME`.

        Without `access_key` (id and secret), the environment's `AWS_…` variables and the machine's own role count.
        Raises `StoreUrlError`.
        """
        bucket, prefix, config = _parsed(url)
        if access_key is not None:
            config |= {"access_key_id": access_key[0], "secret_access_key": access_key[1]}
        self.location = url
        self.requests: RequestTally | None = RequestTally()
        self._count = self.requests.count
        client = {"timeout": _TIMEOUT, "allow_http": config.get("endpoint", "").startswith("http://")}
        retries: RetryConfig = {"max_retries": _RETRIES, "retry_timeout": _TIMEOUT * 2}
        place: dict[str, Any] = {"prefix": prefix, "config": config, "client_options": client}
        self._store = S3Store(bucket, **place, retry_config=retries)
        # What must happen at most once is tried again here, where it is known what an answer means then.
        self._once = S3Store(bucket, **place, retry_config={"max_retries": 0})
        self._place = url.partition("?")[0]
        self.versions = Versions(Bucket(bucket, prefix, config), self._count)

    def prepare(self) -> None:
        """See `Store`: try out what a repository rests on. Raises `StoreUnfitError`."""
        probe = f"tmp/probe-{secrets.token_hex(8)}"
        try:
            if not self.put_if_absent(probe, [b"first"]) or probe not in set(self.list("tmp/")):
                raise self._unfit("what was written isn't listed at once")
            if self.put_if_absent(probe, [b"second"]) or self.get(probe) != b"first":
                raise self._unfit("it overwrites an object where it is asked not to (If-None-Match)")
        finally:
            self.delete(probe)

    def lock_objects(self, lock: ObjectLock) -> None:
        """See `LockableStore`."""
        self.locks = BucketLocks(self.versions, lock, self._place, self.errors)

    def put_if_absent(self, name: str, chunks: Iterable[Buffer]) -> bool:
        """See `Store`."""
        content = b"".join(chunks)
        return self._put_once(checked_name(name), content)

    def create(self, name: str) -> ObjectStoreWriter:
        """See `Store`."""
        return ObjectStoreWriter(self, checked_name(name))

    def replace(self, name: str, chunks: Iterable[Buffer]) -> None:
        """See `Store`."""
        content = b"".join(chunks)
        with self.errors("write", checked_name(name)):
            if locks := self._locks_for(name):
                persistently(lambda: locks.put(name, content))
                return
            self._count("puts")
            obstore.put(self._store, name, content)

    def upload(self, name: str, file: IO[bytes]) -> None:
        """Send a file in parts, under a name that nobody else takes."""

        parts = -(-file.seek(0, os.SEEK_END) // _PART_BYTES)

        def send() -> None:
            file.seek(0)
            if locks := self._locks_for(name):
                try:
                    locks.put(name, file, if_absent=True)
                except AlreadyExistsError as error:  # what an answer that was lost has left: nobody else takes it
                    self._require_there(name, error)
                return
            self._count("puts", parts + _BEGIN_AND_END)
            obstore.put(
                self._store, name, file, use_multipart=True, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
            )

        with self.errors("write", name):
            persistently(send)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store`."""
        with self.errors("read", checked_name(name)):
            if length is None and not offset:
                return self._get(name)
            held = self._head(name)
            end = held if length is None else min(held, offset + length)
            return bytes(self._get_range(name, offset, end)) if offset < end else b""

    def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """See `Store`."""
        with self.errors("read", checked_name(name)):
            try:
                got = self._get_range(name, offset, offset + len(view))
            except GenericError:  # also what is asked for behind the end
                got = memoryview(self.get(name, offset, len(view)))
        view[: len(got)] = got
        return len(got)

    def size(self, name: str) -> int:
        """See `Store`."""
        with self.errors("read", checked_name(name)):
            return self._head(name)

    def exists(self, name: str) -> bool:
        """See `Store`."""
        try:
            self.size(name)
        except ObjectNotFoundError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """See `Store`."""
        with self.errors("list", checked_prefix(prefix)):
            self._count("lists")
            for page in obstore.list(self._store, prefix, chunk_size=_PAGE):
                if len(page) == _PAGE:
                    self._count("lists")
                yield from (item["path"] for item in page if is_object_name(item["path"]))

    def delete(self, name: str) -> None:
        """See `Store`."""
        with self.errors("delete", checked_name(name)):
            if self.locks:
                self.locks.remove(name)
                return
            try:
                self._count("deletes")
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return

    def leftovers(self) -> Iterator[str]:
        """See `Store`; unfinished uploads have no names."""
        yield from self.list("tmp/")

    def remove_leftovers(self, *, before: float) -> int:  # noqa: ARG002 - a store's lifecycle rules end uploads
        """See `Store`; unfinished uploads are for the lifecycle rules of the bucket to end."""
        return 0

    @contextmanager
    def errors(self, action: str, name: str) -> Iterator[None]:
        """Turn what obstore says into what a store says."""
        try:
            yield
        except FileNotFoundError as error:
            what = f"can't {action} {name} in {self._place}"
            raise ObjectNotFoundError(what, why="there is no such object, or no such bucket") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._refused(action, name) from error
        except GenericError as error:
            why = str(error).partition("\n")[0]
            if why.endswith(_DELETE_REFUSED):
                raise self._refused(action, name) from error
            raise StoreError(f"can't {action} {name} in {self._place}", why=why) from error

    def _refused(self, action: str, name: str) -> StoreReadOnlyError:
        return StoreReadOnlyError(
            f"can't {action} {name} in {self._place}",
            why="the access key isn't allowed to, or isn't known there",
            remedy="See which key is used (AWS_ACCESS_KEY_ID, or the proxy's secret) and what it may do.",
        )

    def _put_once(self, name: str, content: bytes) -> bool:
        """Create an object. After a lost answer, an object with our content is ours: wherever that is in doubt, it
        carries a token of its writer."""
        doubtful = False

        def put() -> bool:
            nonlocal doubtful
            try:
                if locks := self._locks_for(name):
                    locks.put(name, content, if_absent=True)
                else:
                    self._count("puts")
                    obstore.put(self._once, name, content, mode="create")
            except AlreadyExistsError as error:
                self._require_there(name, error)
                return doubtful and self._get(name) == content
            except GenericError:
                doubtful = True
                raise
            return True

        with self.errors("write", name):
            return persistently(put)

    def _require_there(self, name: str, error: AlreadyExistsError) -> None:
        """Raise `GenericError` for a conflict of two who write at once, which both may lose."""
        if not self.exists(name):
            raise GenericError("the server says that it exists, and then that it doesn't") from error

    def _locks_for(self, name: str) -> BucketLocks | None:
        return self.locks if name.startswith(LOCKED_PREFIXES) else None

    def _get(self, name: str) -> bytes:
        self._count("gets")
        return bytes(obstore.get(self._store, name).bytes())

    def _get_range(self, name: str, start: int, end: int) -> memoryview:
        self._count("gets")
        return memoryview(obstore.get_range(self._store, name, start=start, end=end))

    def _head(self, name: str) -> int:
        self._count("heads")
        return obstore.head(self._store, name)["size"]

    def _unfit(self, why: str) -> StoreUnfitError:
        return StoreUnfitError(
            f"object store {self._place}", why=why, remedy="Use one with conditional writes and strong listing."
        )


class ObjectStoreWriter:
    """An object that is spooled to a file without a name until it is whole. Implements `StoreWriter`."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `discard` closes it

    def write(self, data: Buffer) -> None:
        """See `StoreWriter`."""
        try:
            self._file.write(data)
        except OSError as error:
            raise StoreError(
                f"can't spool {self._name} in {tempfile.gettempdir()}",
                why=error.strerror or str(error),
                remedy="Set TMPDIR to a folder with room for some packs.",
            ) from error

    def end(self) -> None:
        """See `StoreWriter`."""

    def finish(self) -> bool:
        """See `StoreWriter`. Two with one name at once aren't told apart: names of packs are random."""
        try:
            if self._store.exists(self._name):
                return False
            self._store.upload(self._name, self._file)
            return True
        finally:
            self.discard()

    def discard(self) -> None:
        """See `StoreWriter`."""
        self._file.close()


def _parsed(url: str) -> tuple[str, str | None, dict[str, Any]]:
    parts = urlsplit(url)
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    unknown = sorted(set(options) - _OPTIONS)
    why = None
    if parts.scheme != "s3" or not parts.hostname or parts.username is not None:
        why = "it isn't of the form s3://BUCKET/PREFIX?endpoint=URL&region=NAME, without a user"
    elif unknown:
        why = f"it has the unknown option {unknown[0]!r}"
    elif not options.get("endpoint", "https://").startswith(("https://", "http://")):
        why = "its endpoint is no http or https URL"
    if why is not None:
        raise StoreUrlError(f"object store s3://{parts.hostname or ''}{parts.path}", why=why)
    config: dict[str, Any] = {"region": options.get("region", "us-east-1")}
    if "endpoint" in options:
        config["endpoint"] = options["endpoint"]
    config["virtual_hosted_style_request"] = options.get("virtual_hosted_style", "false") == "true"
    return parts.hostname or "", parts.path.strip("/") or None, config
