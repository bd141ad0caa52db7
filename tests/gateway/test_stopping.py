"""What moves disks to a gateway can be stopped though all that it has stored is still to be sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.figures import DiskProgress
from proxy_worker.mover.backup import back_up_disk
from proxy_worker.mover.copying import Copying
from proxy_worker.mover.pacing import Pacing
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.transport.named import open_path
from tests.gateway.serving import Fleet, serving
from tests.mover.copies import make_source, make_target
from tests.mover.disks import RecordingControl, make_disk, new_vm, request
from tests.repository.making import CREDENTIAL, KEY, noise

NOTHING = 0.0
"""What may be sent, in bytes per second."""


class StoppedAtTheEnd(RecordingControl):
    """Stops a mover that has nothing left to do but to wait: small disks don't take a second before."""

    def report(self, progress: DiskProgress) -> None:
        super().report(progress)
        self.stop = True


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Repository]:
    with make_source(tmp_path / "source") as made:
        yield made


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't wait for what will not become durable here."""
    for module in ("backup", "carrying"):
        monkeypatch.setattr(f"proxy_worker.mover.{module}.SETTLE_S", 0.1)


@pytest.mark.parametrize("twin", [False, True])
def test_a_copy_and_a_backup_are_stopped_while_the_store_waits_to_send(
    tmp_path: Path, source: Repository, twin: bool
) -> None:
    make_target(tmp_path / "far", source, twin=twin).close()
    with serving(Fleet.made(tmp_path / "fleet"), {"main": LocalStore(tmp_path / "far")}) as served:
        target = Repository.open(served.store(), CREDENTIAL)
        (point, *_) = source.points()
        with source.reader(point) as reader, pytest.raises(CancelledError):
            Copying(source, target, "source").copy_disk(
                reader, KEY, run="copy", fence=1, control=StoppedAtTheEnd(), pacing=Pacing(NOTHING)
            )

        disk = make_disk(tmp_path / "disk.raw", len(noise(4)), [(0, noise(4))])
        with open_path(str(disk)) as opened, pytest.raises(CancelledError):
            back_up_disk(
                opened, target, request(new_vm()), fence=1, control=StoppedAtTheEnd(), pacing=Pacing(NOTHING)
            )
        target.close()
