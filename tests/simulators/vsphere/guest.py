"""What the guest of the proxy's VM sees of its disks. Simulated: this machine is no VM of the simulated vCenter.

The simulator can't give this machine a disk. So whatever hangs at the proxy's VM there gets a real loop device over
its file here, and a link to it in a folder, named as udev names disks that have a uuid. What is real: the block
device, how it appears after the API call and goes after it, that it is read in place. What is not: SCSI, udev, the
time a guest's kernel takes, and disk.EnableUUID, of which the guest here knows nothing.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.simulators.loop_devices import attach, detach
from tests.simulators.vsphere.program import VsphereSimulator

POLL_S: Final = 0.02


class SimulatedGuest:
    """A context manager; while it is open, `folder` has a link for each disk of the VM `vm`."""

    def __init__(self, simulator: VsphereSimulator, vm: str, folder: Path) -> None:
        self._simulator = simulator
        self._vm = vm
        self.folder = folder
        self.blind = False
        """When set, the guest notices no new disks."""
        self.seen: list[str] = []
        """The uuids of every disk that it has ever noticed, its own ones too."""
        self._devices: dict[tuple[str, Path], tuple[Path, Path]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="simulated-guest", daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        for known in list(self._devices):
            self._lose(known)
        if self._error is not None:
            raise self._error

    def _watch(self) -> None:
        while not self._stopping.wait(POLL_S):
            try:
                self._look()
            except Exception as error:
                self._error = error
                return

    def _look(self) -> None:
        hanging = {(disk.uuid, disk.file) for disk in self._simulator.disks() if disk.vm == self._vm}
        for gone in set(self._devices) - hanging:
            self._lose(gone)
        for uuid, file in hanging - set(self._devices):
            if not self.blind:
                self._show(uuid, file)

    def _show(self, uuid: str, file: Path) -> None:
        device = attach(file)
        digits = uuid.replace("-", "").lower()
        link = next(
            link for link in (self.folder / f"{kind}{digits}" for kind in ("wwn-0x", "scsi-3")) if not link.exists()
        )
        link.symlink_to(device)
        self._devices[uuid, file] = link, device
        self.seen.append(uuid)

    def _lose(self, known: tuple[str, Path]) -> None:
        link, device = self._devices.pop(known)
        link.unlink(missing_ok=True)
        detach(device)
