"""Tags, which vCenter keeps in its REST interface: a handful of calls per tag, none per VM.

Asked at `/rest`, which vCenter 6.5 to 8.0 serve.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPSConnection
from typing import Any, Final
from urllib.parse import quote

from proxy_worker.contract.errors import SourceError
from proxy_worker.vsphere.faults import UNREACHABLE, translate
from proxy_worker.vsphere.session import Endpoint, VcenterPasswordError
from proxy_worker.vsphere.trust import checked_connection

_SESSION: Final = "/rest/com/vmware/cis/session"
_TAGGING: Final = "/rest/com/vmware/cis/tagging"
_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404


class VcenterTagsError(SourceError):
    """vCenter's tags can't be read."""


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A tag within its category."""

    category: str
    name: str

    def __str__(self) -> str:
        return f"{self.category}:{self.name}"


def read_tags(endpoint: Endpoint, password: str) -> Mapping[str, tuple[Tag, ...]]:
    """The tags of every tagged object, by its managed object id. An ESXi host has none.

    Raises `VcenterTagsError`, and the named errors of `session`, `trust` and `faults`.
    """
    what = f"reading the tags of vCenter {endpoint.name}"
    connection = checked_connection(endpoint.name, endpoint.trust)(
        endpoint.host, endpoint.port, timeout=endpoint.timeout_s, context=endpoint.trust.context()
    )
    try:
        key = _log_in(connection, endpoint, password, what)
        if key is None:
            return {}
        rest = _Rest(connection, key, what)
        try:
            return _tags_by_object(rest)
        finally:
            rest.ask("DELETE", _SESSION)
    except UNREACHABLE as error:
        raise translate(what, error) from error
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class _Rest:
    connection: HTTPSConnection
    key: str
    what: str

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"vmware-api-session-id": self.key, "Content-Type": "application/json"}
        status, answer = _exchange(self.connection, method, path, headers, body)
        if status != _OK:
            raise VcenterTagsError(self.what, why=f"{method} {path} is answered with HTTP {status}")
        return _value(self.what, answer) if answer else None


def _log_in(connection: HTTPSConnection, endpoint: Endpoint, password: str, what: str) -> str | None:
    basic = base64.b64encode(f"{endpoint.user}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "vmware-use-header-authn": "true"}
    status, answer = _exchange(connection, "POST", _SESSION, headers)
    if status == _NOT_FOUND:
        return None
    if status == _UNAUTHORIZED:
        raise VcenterPasswordError(what, why="user name or password is refused")
    if status != _OK:
        raise VcenterTagsError(what, why=f"the login is answered with HTTP {status}")
    return str(_value(what, answer))


def _value(what: str, answer: bytes) -> Any:
    try:
        return json.loads(answer)["value"]
    except (ValueError, KeyError, TypeError) as error:
        raise VcenterTagsError(
            what, why="the answer isn't vCenter's", remedy="Look what else listens there."
        ) from error


def _exchange(
    connection: HTTPSConnection, method: str, path: str, headers: dict[str, str], body: Any = None
) -> tuple[int, bytes]:
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    response = connection.getresponse()
    return response.status, response.read()


def _tags_by_object(rest: _Rest) -> dict[str, tuple[Tag, ...]]:
    categories = {
        ref: _entry(rest, f"{_TAGGING}/category/id:{quote(ref)}", "name")["name"]
        for ref in rest.ask("GET", f"{_TAGGING}/category") or ()
    }
    tags = {}
    for ref in rest.ask("GET", f"{_TAGGING}/tag") or ():
        found = _entry(rest, f"{_TAGGING}/tag/id:{quote(ref)}", "name", "category_id")
        tags[ref] = Tag(categories.get(found["category_id"], ""), found["name"])
    if not tags:
        return {}
    links = rest.ask(
        "POST", f"{_TAGGING}/tag-association?~action=list-attached-objects-on-tags", {"tag_ids": list(tags)}
    )
    by_object: defaultdict[str, list[Tag]] = defaultdict(list)
    for link in links or ():
        for target in link.get("object_ids") or ():
            by_object[target["id"]].append(tags[link["tag_id"]])
    return {ref: tuple(sorted(found)) for ref, found in by_object.items()}


def _entry(rest: _Rest, path: str, *keys: str) -> dict[str, str]:
    found = rest.ask("GET", path)
    if not isinstance(found, dict) or any(key not in found for key in keys):
        raise VcenterTagsError(rest.what, why=f"{path} is answered without {' and '.join(keys)}")
    return found
