"""The VMs of a datastore that is a folder.

Every VM has a folder, with its VMX in it. A VM that can't be read is listed with its problem: an inventory
that leaves out what is broken would end its backups in silence.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from proxy_worker.contract.errors import NotFoundError, ProxyfleetError, SourceError
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, InventoryVm, VmIdentity
from proxy_worker.transport.connections import Connections
from proxy_worker.transport.datastore import Datastore, DiskNotFoundError
from proxy_worker.transport.image import open_image
from proxy_worker.transport.nbd.uri import is_nbd_uri, parse_uri
from proxy_worker.transport.vmx import VMX_LIMIT_BYTES, Vmx, VmxDisk, parse_vmx
from proxy_worker.transport.vmx_hardware import parse_hardware

_LONGEST_NAME: Final = 255


class DatastoreUnreadableError(SourceError):
    """A datastore's folder can't be listed, or is empty as an unmounted one is."""


@dataclass(frozen=True)
class _Found:
    """A VM, and the VMX it was found in."""

    vmx_path: str
    vm: InventoryVm


def scan_datastore(name: str, root: Path, *, machines: bool = False) -> tuple[InventoryVm, ...]:
    """The VMs whose folders lie directly in `root`, by the path of their VMX.

    Raises DatastoreUnreadableError, also for a folder with nothing at all in it: a mount point that nothing is
    mounted on looks so, and its VMs would drop out of every `*` in silence. What is wrong with a single VM is in
    its `problem`. With `machines`, each comes with what it is made of.
    """
    try:
        entries = list(root.iterdir())
        # Folders that begin with a dot are the datastore's own: snapshots of the array, heartbeats.
        folders = sorted(entry for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DatastoreUnreadableError(
            f"can't list datastore {name} at {root}", why=error.strerror or str(error), remedy="Is it mounted?"
        ) from error
    if not entries:
        raise DatastoreUnreadableError(
            f"datastore {name} at {root} has no VMs",
            why="its folder is empty",
            remedy="Is it mounted? One that is to stay empty needs no [[datastore]].",
        )
    datastore = Datastore(name, root)
    found = []
    for folder in folders:
        try:
            names = sorted(entry.name for entry in folder.iterdir() if entry.name.lower().endswith(".vmx"))
        except OSError as error:
            found.append(_broken(datastore, f"{folder.name}/", f"can't list its folder: {error.strerror}"))
            continue
        found += [_read_vm(datastore, f"{folder.name}/{vmx}", machines=machines) for vmx in names]
    return tuple(_with_duplicates_marked(found))


def read_configuration(address: DiskAddress, connections: Connections) -> bytes:
    """A file of a VM's configuration, at most 1 MiB. Raises SourceError, NotFoundError."""
    connection = connections.datastores.get(address.datastore or "")
    if connection is None or connection.path is None:
        raise DatastoreUnreadableError(
            f"can't read {address.path}", why=f"this proxy has no path to datastore {address.datastore}"
        )
    datastore = Datastore(address.datastore or "", connection.path)
    return datastore.read_file(address.path or "", limit_bytes=VMX_LIMIT_BYTES)


def _read_vm(datastore: Datastore, vmx_path: str, *, machines: bool) -> _Found:
    if not vmx_path.isprintable():  # also what Python makes of bytes that aren't UTF-8
        return _broken(datastore, vmx_path, "its path isn't printable UTF-8; rename it")
    try:
        content = datastore.read_file(vmx_path, limit_bytes=VMX_LIMIT_BYTES)
        vmx = parse_vmx(content, vmx_path)
        machine = msgspec.json.encode(parse_hardware(content, vmx_path)).decode() if machines else None
    except (SourceError, NotFoundError) as error:
        return _broken(datastore, vmx_path, str(error))
    identity = VmIdentity(vm_id=vmx.uuid, name=vmx.name) if vmx.uuid else VmIdentity.of_name(vmx.name)
    disks: list[DiskIdentity] = []
    problems: list[str] = []
    for disk in vmx.disks:
        try:
            address = _address(datastore, vmx_path, disk)
        except ProxyfleetError as error:
            problems.append(f"{disk.key}: {error}")
            continue
        size: int | None = None
        if address.path is not None:
            try:
                with closing(open_image(datastore, address.path)) as image:
                    size = image.size_bytes
            except (SourceError, NotFoundError) as error:
                problems.append(f"{disk.key}: {error}")
        disks.append(DiskIdentity(key=disk.key, address=address, size_bytes=size))
    if not vmx.disks:
        problems.append("it has no disks")
    return _Found(
        vmx_path,
        InventoryVm(
            identity=identity,
            disks=tuple(disks),
            configuration=_configuration(datastore, vmx_path, vmx),
            problem="; ".join(problems) or None,
            machine=machine,
        ),
    )


def _address(datastore: Datastore, vmx_path: str, disk: VmxDisk) -> DiskAddress:
    if is_nbd_uri(disk.file_name):
        return DiskAddress(nbd_uri=parse_uri(disk.file_name).text)
    return DiskAddress(datastore=datastore.name, path=datastore.resolve(disk.file_name, referrer=vmx_path))


def _configuration(datastore: Datastore, vmx_path: str, vmx: Vmx) -> tuple[DiskAddress, ...]:
    """The VMX, and the NVRAM where there is one: a VM that was never switched on has none yet."""
    files = [DiskAddress(datastore=datastore.name, path=vmx_path)]
    if vmx.nvram is not None:
        try:
            path = datastore.resolve(vmx.nvram, referrer=vmx_path)
            datastore.open_file(path).close()
        except (DiskNotFoundError, SourceError):
            return tuple(files)
        files.append(DiskAddress(datastore=datastore.name, path=path))
    return tuple(files)


def _broken(datastore: Datastore, vmx_path: str, problem: str) -> _Found:
    """A VM of which nothing but its place is known."""
    shown = vmx_path.encode("utf-8", "replace").decode()
    identity = VmIdentity.of_name(f"[{datastore.name}] {shown}")
    name = PurePosixPath(shown).stem[:_LONGEST_NAME] or shown
    return _Found(
        shown, InventoryVm(identity=identity.model_copy(update={"name": name}), disks=(), problem=problem)
    )


def _with_duplicates_marked(found: list[_Found]) -> list[InventoryVm]:
    """The VMs; those that share an id, as a copied VM does, can't be told apart and so get a problem."""
    by_id: dict[str, list[_Found]] = {}
    for item in found:
        by_id.setdefault(item.vm.identity.vm_id, []).append(item)
    vms = []
    for item in found:
        others = [other.vmx_path for other in by_id[item.vm.identity.vm_id] if other is not item]
        if not others:
            vms.append(item.vm)
            continue
        words = (
            f"its id {item.vm.identity.vm_id} (uuid.bios, or its name) is also that of {', '.join(others)}; "
            "give one of them another"
        )
        problem = f"{item.vm.problem}; {words}" if item.vm.problem else words
        vms.append(item.vm.model_copy(update={"problem": problem}))
    return vms
