"""What each key can do: every cell of the table is tried, and the docs print that table."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy_worker.cli.repository_keys import app as keys_app
from proxy_worker.contract.errors import CredentialError
from proxy_worker.repository.abilities import ABILITIES, Holder, Operation, abilities_table
from proxy_worker.repository.check import check
from proxy_worker.repository.collector import collect
from proxy_worker.repository.credentials import (
    Credential,
    KeyFile,
    load_credential,
    make_key_file,
    save_key_file,
)
from proxy_worker.repository.errors import CannotReadError
from proxy_worker.repository.issuing import issued_keys, record_issue, revoke
from proxy_worker.repository.passphrases import keys
from proxy_worker.repository.proving import ProofSettings, prove
from proxy_worker.repository.reindex import reindex
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.scrub import scrub
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.withdrawal import end_point
from proxy_worker.repository.writer import WriterLimits
from tests.repository.making import (
    CREDENTIAL,
    PASSPHRASE,
    back_up,
    commit,
    make_repository,
    noise,
    restore,
    write_disk,
)

ROOT = Path(__file__).parents[2]
CELLS = list(itertools.product(Operation, Holder))


class Place:
    """A repository, and somebody who comes to it with files or with nothing."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self.store = LocalStore(folder / "repository")
        self.folder = folder
        self.holder = holder

    def opened(self) -> Repository:
        """As its holder."""
        if self.holder is Holder.PASSPHRASE:
            return Repository.open(self.store, CREDENTIAL)
        if self.holder is Holder.NOTHING:
            return Repository.open(self.store, Credential())
        return Repository.open(self.store, Credential(key=handed_out(self.folder, self.holder)))

    def command(self, *arguments: str) -> None:
        """Run a command of `repository keys` with the holder's file; raises what ends it."""
        option = {Holder.PASSPHRASE: ["--passphrase-file", f"{self.folder}/passphrase"]}.get(self.holder, [])
        name, *rest = arguments
        ran = CliRunner().invoke(keys_app, [name, self.store.location, *rest, *option])
        if ran.exception is not None:
            raise ran.exception


def handed_out(folder: Path, holder: Holder) -> KeyFile:
    key = load_credential(key_file=folder / f"{holder.name}.key").key
    assert key
    return key


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    (folder / "passphrase").write_bytes(PASSPHRASE)
    (folder / "new").write_bytes(b"new")
    with make_repository(folder / "repository") as owner:
        assert owner.unlocked
        commit(owner, write_disk(owner, noise(3), run="first", limits=WriterLimits()), run="first")
        for holder in (Holder.READ_KEY, Holder.WRITE_KEY, Holder.REVOKED_KEY):
            key = make_key_file(
                owner.unlocked,
                kind="read" if holder is Holder.READ_KEY else "write",
                repository_id=owner.id,
                generation=1,
                label=holder.name,
                group="owner",
            )
            record_issue(owner.access, key)
            save_key_file(key, folder / f"{holder.name}.key")
        revoke(owner.access, owner.unlocked, Holder.REVOKED_KEY.name)
    return folder


def _sound(place: Place) -> None:
    report = check(place.opened().access)
    assert report.findings == ()
    if report.notes:  # blocks that were only compared with their checksums
        raise CredentialError(report.notes[-1])


def _listed(place: Place) -> None:
    assert [point.run for point in place.opened().points()] == ["first"]


def _backed_up(place: Place) -> None:
    point = back_up(place.opened(), noise(3) + noise(1, 2), run="second")
    assert point.disks[0].stored_bytes < len(noise(2))


def _removed(place: Place) -> None:
    with place.opened() as repository:
        assert end_point(repository.access, vm_id="vm-1", run="first")
        assert collect(repository).freed_packs > 0


def _rebuilt(place: Place) -> None:
    for name in list(place.store.list("index/")):
        place.store.delete(name)
    assert reindex(place.opened().access).packs > 0


def _restored(place: Place) -> None:
    with place.opened() as repository:
        assert restore(repository, repository.point("vm-1", "first")) == noise(3)


def _mended(place: Place) -> None:
    """A pack whose ends are hit: its chunks have to be opened to be told from damaged ones."""
    [pack] = [name for name in place.store.list("packs/") if place.store.size(name) > len(noise(3))]
    path = place.folder / "repository" / pack
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    report = prove(place.opened(), ProofSettings(everything=True))
    if any(point.damaged for point in report.points):
        raise CannotReadError("its blocks can't be told from damaged ones")


TRIES: dict[Operation, Callable[[Place], object]] = {
    Operation.LIST_POINTS: _listed,
    Operation.BACK_UP: _backed_up,
    Operation.REMOVE_POINT: _removed,
    Operation.REINDEX: _rebuilt,
    Operation.RESTORE: _restored,
    Operation.CHECK_ALL: _sound,
    Operation.REPAIR: _mended,
    Operation.SCRUB: lambda place: scrub(place.store),
    Operation.LIST_PASSPHRASES: lambda place: list(keys(place.store)),
    Operation.LIST_HANDED_OUT: lambda place: list(issued_keys(place.opened().access)),
    Operation.HAND_OUT: lambda place: place.command("export-write", "--out", f"{place.folder}/another.key"),
    Operation.REVOKE: lambda place: place.command("revoke", "WRITE_KEY"),
    Operation.PASSPHRASES: lambda place: place.command("add", "--new-passphrase-file", f"{place.folder}/new"),
    Operation.ROTATE: lambda place: place.command("rotate"),
    Operation.PRINT_SHEET: lambda place: place.command("recovery-sheet", "--out", f"{place.folder}/sheet.html"),
}


@pytest.fixture
def place(template: Path, tmp_path: Path, holder: Holder, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("os.fsync", lambda _: None)
    return Place(Path(shutil.copytree(template, tmp_path / "copy")), holder)


@pytest.mark.parametrize(
    ("operation", "holder"), CELLS, ids=[f"{operation.value} with {holder.value}" for operation, holder in CELLS]
)
def test_a_cell_of_the_table(operation: Operation, holder: Holder, place: Place) -> None:
    if holder in ABILITIES[operation]:
        TRIES[operation](place)
        return
    with pytest.raises(CredentialError):
        TRIES[operation](place)


def test_the_docs_print_this_table() -> None:
    assert abilities_table() in (ROOT / "docs/security.md").read_text()
