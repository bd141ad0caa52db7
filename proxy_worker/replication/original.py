"""The VM that a failback writes: whether its disks are still the files that are to be written."""

from __future__ import annotations

from collections.abc import Iterable

from proxy_worker.contract.subjects import DiskIdentity
from proxy_worker.replication.errors import OriginalChangedError
from proxy_worker.replication.folder import ReplicaFolder
from proxy_worker.transport.vmx import VMX_LIMIT_BYTES, parse_vmx


def require_disks(folder: ReplicaFolder, disks: Iterable[DiskIdentity]) -> None:
    """Raise `OriginalChangedError` unless every VMX in the folder names just these files for its disks.

    What is written beneath a snapshot makes it worthless. Raises SourceError where a VMX can't be read.
    """
    wanted = {disk.key: folder.datastore.resolve(disk.address.path or "") for disk in disks}
    if not wanted:
        return
    for name in sorted(entry.name for entry in folder.path.iterdir() if entry.name.lower().endswith(".vmx")):
        path = f"{folder.path.name}/{name}"
        vmx = parse_vmx(folder.datastore.read_file(path, limit_bytes=VMX_LIMIT_BYTES), path)
        named = {disk.key: folder.datastore.resolve(disk.file_name, referrer=path) for disk in vmx.disks}
        for key, file in wanted.items():
            if named.get(key) != file:
                raise OriginalChangedError(
                    f"disk {key} of {path}",
                    why=f"it is {named.get(key, 'none')} now, and {file} was replicated",
                    remedy="Remove the snapshots that were taken since, and put back the disks as they were.",
                )
