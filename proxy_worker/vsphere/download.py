"""Small files fetched from a datastore over HTTPS, as vCenter's `/folder` serves them."""

from __future__ import annotations

import re
from http.client import HTTPResponse
from typing import Final
from urllib.parse import quote, urlencode

from pyVmomi import vim

from proxy_worker.contract.errors import NotFoundError, SourceError
from proxy_worker.vsphere.faults import MissingPrivilegeError, VsphereError
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.trust import checked_connection

_PATH: Final = re.compile(r"\[(?P<datastore>[^\]]+)\] (?P<path>.+)")
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 401, 403, 404


class DatastoreFileMissingError(NotFoundError):
    """A file of a VM isn't in its datastore any more."""


class DatastoreFileTooLargeError(SourceError):
    """A file of a VM's configuration is larger than such a file ever is."""

    retryable = False


def download(session: Session, datacenter: str, path: str, *, limit_bytes: int) -> bytes:
    """The whole file at `[datastore] folder/name`, of at most `limit_bytes`.

    `datacenter` is the datacentre's path in the inventory, e.g. `Europe/DC0`. The login is the session's, and the
    server has to prove again who it is. Raises DatastoreFileMissingError, DatastoreFileTooLargeError,
    MissingPrivilegeError, VsphereError, and the errors of the session.
    """
    what = f"reading {path} of vCenter {session.endpoint.name}"
    found = _PATH.fullmatch(path)
    if found is None:
        raise DatastoreFileMissingError(what, why="that isn't the path of a file in a datastore")
    target = f"/folder/{quote(found['path'])}?{urlencode({'dcPath': datacenter, 'dsName': found['datastore']})}"
    return session.call(what, lambda: _get(session, what, target, limit_bytes), repeatable=True)


def _get(session: Session, what: str, target: str, limit_bytes: int) -> bytes:
    endpoint = session.endpoint
    connect = checked_connection(endpoint.name, endpoint.trust)
    connection = connect(endpoint.host, endpoint.port, timeout=endpoint.timeout_s, context=endpoint.trust.context())
    try:
        connection.request("GET", target, headers={"Cookie": session.stub.cookie.partition(";")[0]})
        answer = connection.getresponse()
        if answer.status != _OK:
            raise _refusal(what, answer)
        content = answer.read(limit_bytes + 1)
    finally:
        connection.close()
    if len(content) > limit_bytes:
        raise DatastoreFileTooLargeError(what, why=f"it has more than the {limit_bytes} bytes such a file may have")
    return content


def _refusal(what: str, answer: HTTPResponse) -> Exception:
    if answer.status == _UNAUTHORIZED:
        return vim.fault.NotAuthenticated()  # the session logs in again
    if answer.status == _FORBIDDEN:
        return MissingPrivilegeError(what, privilege="Datastore.FileManagement", on="the datastore")
    if answer.status == _NOT_FOUND:
        return DatastoreFileMissingError(
            what, why="there is no such file", remedy="If the VM was moved, rescan the vCenter."
        )
    return VsphereError(what, why=f"it answers {answer.status} {answer.reason}")
