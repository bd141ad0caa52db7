"""Versions of objects in a bucket, and their locks, through botocore: obstore knows of neither.

What goes wrong is raised as obstore raises it, so that one translation serves both. botocore is loaded with the
first request: few repositories need it.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from http import HTTPStatus
from itertools import chain, groupby
from operator import attrgetter
from typing import IO, Any, Final

from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError, UnauthenticatedError

from proxy_worker.repository.store.locks import HowHidden, ObjectLock, ObjectLockRefusedError
from proxy_worker.repository.store.retrying import persistently
from proxy_worker.repository.store.tally import RequestKind

_TIMEOUT_S: Final = 60
_CONNECTIONS: Final = 16
_PIECE_BYTES: Final = 1 << 20
_PAGE: Final = 1000
"""Versions that a request for a listing returns at most."""
_TAKEN: Final = {"PreconditionFailed", "ConditionalRequestConflict"}
_NO_LOCKS: Final = {"InvalidRequest", "ObjectLockConfigurationNotFoundError", "NotImplemented", "InvalidArgument"}

_making: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where objects lie and how to get there."""

    name: str
    prefix: str | None
    options: dict[str, Any]
    """As obstore takes them."""

    def key_of(self, name: str) -> str:
        """The key of an object."""
        return f"{self.prefix}/{name}" if self.prefix else name


@dataclass(frozen=True, slots=True)
class Version:
    """What once was put under a name, or the mark of its deletion."""

    name: str
    version_id: str
    etag: str | None
    """Of its content; None for the mark of a deletion."""
    modified_at: float
    """Unix seconds, by the server's clock."""
    is_current: bool


def original_of(versions: Sequence[Version]) -> Version | None:
    """Of a name's versions, as `Versions.below` gives them, the object: the oldest that has content."""
    return next((version for version in reversed(versions) if version.etag), None)


def how_hidden(versions: Sequence[Version]) -> HowHidden | None:
    """What has become of the object; None where it, or a copy of it, is seen under its name."""
    original, current = original_of(versions), next((version for version in versions if version.is_current), None)
    if original is None or (current and current.etag == original.etag):
        return None
    return "deleted" if current and not current.etag else "overwritten"


class Versions:
    """The versions below a prefix of a bucket. From any thread."""

    def __init__(self, bucket: Bucket, count: Callable[[RequestKind], None]) -> None:
        self._bucket = bucket
        self._count = count
        self._made: Any = None

    def put(self, name: str, body: bytes | IO[bytes], lock: ObjectLock, until: float, *, if_absent: bool) -> str:
        """Create an object that is locked from the start, `until` then (Unix seconds); the id of its version, empty
        where versions aren't kept."""
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        self._count("puts")
        with _as_obstore_does(self._bucket.name):
            made = self._client.put_object(
                **self._named(name),
                Body=body,
                ContentMD5=_md5_of(body),
                ObjectLockMode=lock.mode.upper(),
                ObjectLockRetainUntilDate=_moment(until),
                **condition,
            )
        version: str = made.get("VersionId", "")
        return version

    def locked_until(self, name: str, version_id: str | None = None) -> float:
        """When the lock of a version, the current one unless given, ends, in Unix seconds; 0 when it has none."""
        self._count("heads")
        with _as_obstore_does(self._bucket.name):
            until = self._client.head_object(**self._named(name, version_id)).get("ObjectLockRetainUntilDate")
        return until.timestamp() if until else 0.0

    def lock(self, name: str, version_id: str, lock: ObjectLock, until: float) -> None:
        """Lock a version until then (Unix seconds): later than before, never sooner."""
        self._count("puts")
        with _as_obstore_does(self._bucket.name):
            self._client.put_object_retention(
                **self._named(name, version_id),
                Retention={"Mode": lock.mode.upper(), "RetainUntilDate": _moment(until)},
            )

    def below(self, prefix: str) -> Iterator[list[Version]]:
        """Name by name the versions of all objects whose name begins so, each name's newest first but its marks of
        deletion last."""
        found = chain.from_iterable(self._pages(prefix))
        for _, versions in groupby(found, key=attrgetter("name")):
            yield list(versions)

    def delete(self, version: Version) -> None:
        """Remove a version, or the mark of a deletion."""
        self._count("deletes")
        try:
            with _as_obstore_does(self._bucket.name):
                self._client.delete_object(**self._named(version.name, version.version_id))
        except ObjectLockRefusedError as error:  # MinIO calls it an invalid request to delete what is locked
            raise PermissionDeniedError(error.why) from error

    def hide(self, name: str) -> None:
        """Mark an object as deleted; its versions stay."""
        self._count("deletes")
        with _as_obstore_does(self._bucket.name):
            self._client.delete_object(**self._named(name))

    def put_on_top(self, version: Version) -> None:
        """Copy a version over those that came later."""
        self._count("puts")
        named = self._named(version.name)
        with _as_obstore_does(self._bucket.name):
            self._client.copy_object(**named, CopySource={**named, "VersionId": version.version_id})

    @property
    def _client(self) -> Any:
        with _making:  # a session isn't for several threads
            if self._made is None:
                self._made = _client_of(self._bucket)
            return self._made

    def _named(self, name: str, version_id: str | None = None) -> dict[str, str]:
        named = {"Bucket": self._bucket.name, "Key": self._bucket.key_of(name)}
        return {**named, "VersionId": version_id} if version_id else named

    def _pages(self, prefix: str) -> Iterator[list[Version]]:
        beginning = len(self._bucket.key_of(""))
        after: dict[str, str] | None = {}
        while after is not None:
            page = persistently(partial(self._page, prefix, after))
            marks = ("KeyMarker", "VersionIdMarker")
            after = {mark: page[f"Next{mark}"] for mark in marks if page.get(f"Next{mark}")}
            after = after if page.get("IsTruncated") and after else None
            found = [
                Version(
                    item["Key"][beginning:],
                    item["VersionId"],
                    item.get("ETag"),
                    item["LastModified"].timestamp(),
                    item["IsLatest"],
                )
                for item in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            ]
            yield sorted(found, key=attrgetter("name"))

    def _page(self, prefix: str, after: dict[str, str]) -> Any:
        self._count("lists")
        with _as_obstore_does(self._bucket.name):
            return self._client.list_object_versions(
                Bucket=self._bucket.name, Prefix=self._bucket.key_of(prefix), MaxKeys=_PAGE, **after
            )


@cache
def _session() -> Any:
    from botocore.session import Session  # noqa: PLC0415 - heavy, and rarely wanted

    return Session()


def _client_of(bucket: Bucket) -> Any:
    """Requests but listings are sent once: who sends them knows what an answer means when they are repeated."""
    from botocore.config import Config  # noqa: PLC0415 - heavy, and rarely wanted

    options = bucket.options
    return _session().create_client(
        "s3",
        region_name=options["region"],
        endpoint_url=options.get("endpoint"),
        verify=ssl.get_default_verify_paths().cafile or True,  # the authorities that obstore trusts, too
        aws_access_key_id=options.get("access_key_id"),
        aws_secret_access_key=options.get("secret_access_key"),
        config=Config(
            signature_version="s3v4",
            connect_timeout=_TIMEOUT_S,
            read_timeout=_TIMEOUT_S,
            retries={"total_max_attempts": 1},
            max_pool_connections=_CONNECTIONS,
            # Other checksums than those that S3 asks for aren't known to every server that is like it.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "virtual" if options["virtual_hosted_style_request"] else "path"},
        ),
    )


@contextmanager
def _as_obstore_does(bucket: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # noqa: PLC0415

    try:
        yield
    except NoCredentialsError as error:
        raise UnauthenticatedError(str(error)) from error
    except BotoCoreError as error:
        raise GenericError(str(error)) from error
    except ClientError as error:
        said = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        text = f"{said.get('Code')}: {said.get('Message')}"
        match status:
            case HTTPStatus.NOT_FOUND:
                raise FileNotFoundError(text) from error
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
                raise PermissionDeniedError(text) from error
        if said.get("Code") in _TAKEN or status == HTTPStatus.PRECONDITION_FAILED:
            raise AlreadyExistsError(text) from error
        if said.get("Code") in _NO_LOCKS:
            raise ObjectLockRefusedError(
                f"object lock in bucket {bucket}",
                why=f"the server says {text}",
                remedy="Make the bucket with object lock enabled.",
            ) from error
        raise GenericError(text) from error


def _md5_of(body: bytes | IO[bytes]) -> str:
    """S3 asks for it with whatever is to be locked; of a file from where it stands, which it is put back to."""
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(body, bytes):
        digest.update(body)
    else:
        begin = body.tell()
        while piece := body.read(_PIECE_BYTES):
            digest.update(piece)
        body.seek(begin)
    return base64.b64encode(digest.digest()).decode()


def _moment(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC).replace(microsecond=0)
