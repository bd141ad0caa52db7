"""Files put into a datastore over HTTPS, as vCenter's `/folder` takes them."""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import quote, urlencode

from proxy_worker.contract.errors import TargetError
from proxy_worker.vsphere.faults import UNREACHABLE, MissingPrivilegeError, translate
from proxy_worker.vsphere.session import Endpoint
from proxy_worker.vsphere.trust import checked_connection

_MADE: Final = frozenset({200, 201, 204})
_REFUSED: Final = frozenset({401, 403})


class UploadError(TargetError):
    """A file can't be put into a datastore."""


def upload(
    endpoint: Endpoint, password: str, content: bytes, *, datacenter: str, datastore: str, path: str
) -> None:
    """Put a small file at `path` of a datastore, in place of one that is there.

    Raises `UploadError`, `MissingPrivilegeError`, and the named errors of `trust` and `faults`.
    """
    what = f"[{datastore}] {path} of vCenter {endpoint.name}"
    connection = checked_connection(endpoint.name, endpoint.trust)(
        endpoint.host, endpoint.port, timeout=endpoint.timeout_s, context=endpoint.trust.context()
    )
    basic = base64.b64encode(f"{endpoint.user}:{password}".encode()).decode()
    target = f"/folder/{quote(path)}?{urlencode({'dcPath': datacenter, 'dsName': datastore})}"
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/octet-stream"}
    try:
        connection.request("PUT", target, content, headers)
        answer = connection.getresponse()
        answer.read()
    except UNREACHABLE as error:
        raise translate(f"writing {what}", error) from error
    finally:
        connection.close()
    if answer.status in _REFUSED:
        raise MissingPrivilegeError(f"writing {what}", privilege="Datastore.FileManagement", on=datastore)
    if answer.status not in _MADE:
        raise UploadError(f"{what} can't be written", why=f"vCenter answers with HTTP {answer.status}")
