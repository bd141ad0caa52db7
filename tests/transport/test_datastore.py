"""Nothing outside a datastore is ever opened, whatever refers to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.transport.datastore import (
    Datastore,
    DiskNotFoundError,
    FileUnreadableError,
    LinkOutsideError,
    OutsideDatastoreError,
    resolve_path,
)


@pytest.mark.parametrize(
    ("reference", "referrer", "path"),
    [
        ("web01.vmdk", "web01/web01.vmx", "web01/web01.vmdk"),
        ("../db/db.vmdk", "web01/web01.vmx", "db/db.vmdk"),
        ("[ds1] db/db.vmdk", "web01/web01.vmx", "db/db.vmdk"),
        ("/vmfs/volumes/ds1/db/db.vmdk", "web01/web01.vmx", "db/db.vmdk"),
        ("web01/web01.vmdk", None, "web01/web01.vmdk"),
    ],
)
def test_references_within_the_datastore(
    datastore: Datastore, reference: str, referrer: str | None, path: str
) -> None:
    assert datastore.resolve(reference, referrer=referrer) == path


@pytest.mark.parametrize(
    "reference",
    [
        "/etc/passwd",
        "../../etc/passwd",
        "..",
        "",
        "a\0b",
        "[ds2] a.vmdk",
        "[ds1",
        "/vmfs/volumes/ds2/a.vmdk",
        "[ds1] ../x",
    ],
)
def test_references_that_lead_outside(datastore: Datastore, reference: str) -> None:
    with pytest.raises(OutsideDatastoreError):
        datastore.resolve(reference, referrer="web01/web01.vmx")


@given(st.text(alphabet="./[]ds1ab \\", max_size=30), st.sampled_from([None, "a/b.vmx", "a/b/c.vmx", "b.vmx"]))
def test_a_resolved_path_never_leaves(reference: str, referrer: str | None) -> None:
    try:
        path = resolve_path(reference, names=("ds1",), referrer=referrer)
    except OutsideDatastoreError:
        return
    assert not path.startswith("/")
    assert os.path.normpath(f"/datastore/{path}").startswith("/datastore/")


def test_links_are_followed_within_and_refused_outwards(datastore: Datastore, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "real").mkdir()
    (folder / "real" / "disk").write_bytes(b"disk")
    (folder / "alias").symlink_to("real")
    (folder / "out").symlink_to(tmp_path)
    (folder / "file").symlink_to("../secret")
    (folder / "loop").symlink_to("loop")
    assert datastore.read_file("alias/disk", limit_bytes=10) == b"disk"
    for path in ("out/secret", "file"):
        with pytest.raises(LinkOutsideError, match="a link leads outside"):
            datastore.open_file(path)
    with pytest.raises(FileUnreadableError):
        datastore.open_file("loop")


def test_what_is_no_file_is_named(datastore: Datastore, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "sub").mkdir()
    for path in ("pipe", "sub"):
        with pytest.raises(FileUnreadableError, match="neither a file nor a block device"):
            datastore.open_file(path)
    with pytest.raises(DiskNotFoundError, match="gone/disk in datastore ds1 not found"):
        datastore.open_file("gone/disk")


def test_a_small_file_must_be_small(datastore: Datastore, folder: Path) -> None:
    (folder / "x.vmx").write_bytes(bytes(11))
    with pytest.raises(FileUnreadableError, match="more than the 10"):
        datastore.read_file("x.vmx", limit_bytes=10)
