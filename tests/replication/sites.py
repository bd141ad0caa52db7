"""Two sites in one process: a disk at the source, a datastore at the target, and ways between them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import msgspec

from proxy_worker.contract.figures import Receiver
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.replication import DiskReplicate, ReplicaPlace, ReplicaTarget
from proxy_worker.contract.replication_outcome import DiskReplicateResult
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, Extent, TransportPreference, VmIdentity
from proxy_worker.mover.configuration import ConfigurationFile
from proxy_worker.mover.control import Control, Unattended
from proxy_worker.mover.effort import Effort
from proxy_worker.mover.pacing import Pacing
from proxy_worker.replication.disk import ReplicaDisk
from proxy_worker.replication.far_end import FarEnd
from proxy_worker.replication.folder import ReplicaFolder
from proxy_worker.replication.near_end import NearEnd
from proxy_worker.replication.reception import Reception
from proxy_worker.replication.replicating import replicate_disk
from proxy_worker.replication.session_lock import writing
from proxy_worker.replication.table import TableFolder
from proxy_worker.transport.connections import Connections, DatastoreConnection
from proxy_worker.transport.named import open_path
from proxy_worker.transport.source import DiskSource

KEY = "scsi0:0"
VM = VmIdentity(vm_id="web01", name="web01")
PLACE = ReplicaPlace(datastore="ds-dr", folder="web01_replica")
NOBODY = Receiver(proxy="nobody", host="localhost", port=1)
_fences = count(1)


def never() -> None:
    """Says go on."""


@dataclass
class Target:
    """The target's datastore, and its proxy's state folder."""

    root: Path
    state_dir: Path
    disk_path: str = f"{PLACE.folder}/disk.vmdk"
    control: Control = field(default_factory=Unattended)

    @classmethod
    def made(cls, folder: Path) -> Target:
        (folder / "ds-dr").mkdir(parents=True)
        return cls(folder / "ds-dr", folder / "state")

    @property
    def connections(self) -> Connections:
        return Connections(datastores={PLACE.datastore: DatastoreConnection(path=self.root)})

    @property
    def folder(self) -> ReplicaFolder:
        return ReplicaFolder.reached(PLACE, self.connections)

    @property
    def identity(self) -> DiskIdentity:
        return DiskIdentity(key=KEY, address=DiskAddress(datastore=PLACE.datastore, path=self.disk_path))

    @property
    def replica(self) -> ReplicaTarget:
        return ReplicaTarget(place=PLACE, disk=self.identity)

    @property
    def flat(self) -> Path:
        """The file with the replica's bytes."""
        path = self.root / self.disk_path
        return path.with_name(f"{path.stem}-flat.vmdk") if path.suffix == ".vmdk" else path

    def open_folder(self) -> None:
        """Make the folder, as a task does that opens the replica."""
        self.folder.prepare(new=True)
        self.folder.note(msgspec.structs.replace(self.folder.marker(), original=VM.vm_id))

    @contextmanager
    def reception(self, fence: int | None = None) -> Iterator[tuple[Reception, bytes]]:
        """A session, as a task has it, and the key of its digests."""
        folder = self.folder
        self.open_folder()
        disk = ReplicaDisk(folder, self.identity)
        session = folder.session_file(KEY)
        with writing(session, disk.name, fence or next(_fences), patience_s=30, go_on=never):
            table = TableFolder(self.state_dir).table(self.identity.address)
            reception = Reception(folder, disk, table, self.control)
            try:
                yield reception, table.key
            finally:
                reception.close()


def request(
    run: str,
    *,
    areas: Iterable[tuple[int, int]] | None = None,
    parent: str | None = None,
    streams: int = 5,
    level: CompressionLevel = CompressionLevel.OPTIMAL,
    session: str = "session",
) -> DiskReplicate:
    """What the source's proxy is asked for."""
    return DiskReplicate(
        job="to-dr",
        run=run,
        session=session,
        vm=VM,
        disk=DiskIdentity(key=KEY, address=DiskAddress(path="disk.raw")),
        transport=TransportPreference(),
        receiver=NOBODY,
        level=level,
        streams=streams,
        changed_areas=None if areas is None else tuple(Extent(offset=o, length=n) for o, n in areas),
        parent=parent,
    )


def send(
    disk: Path | DiskSource,
    end: FarEnd,
    asked: DiskReplicate,
    *,
    control: Control | None = None,
    pacing: Pacing | None = None,
    given_up: threading.Event | None = None,
    configuration: Iterable[ConfigurationFile] = (),
    effort: Effort | None = None,
) -> DiskReplicateResult:
    """The source's part."""
    source = open_path(str(disk)) if isinstance(disk, Path) else disk
    with source:
        return replicate_disk(
            source,
            end,
            asked,
            control or Unattended(),
            pacing=pacing or Pacing(),
            given_up=given_up or threading.Event(),
            configuration=tuple(configuration),
            effort=effort,
        )


def replicate_here(disk: Path | DiskSource, target: Target, asked: DiskReplicate) -> DiskReplicateResult:
    """Both parts in one process, without a network."""
    with target.reception() as (reception, _):
        return send(disk, NearEnd(reception), asked)
