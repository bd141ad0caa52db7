"""Names are safe in files, Redis keys, lanes and object names alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.names import TaskKind, TransportMode, disk_lane, is_name, proxy_lane, repository_lane


@pytest.mark.parametrize("text", ["a", "web-01.prod_2", "X" * 63])
def test_names_that_are_accepted(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize("text", ["", ".hidden", "-v", "a/b", "../x", "a b", "a\n", "ä", "x" * 64, "a:b", "a*"])
def test_names_that_are_refused(text: str) -> None:
    assert not is_name(text)


@given(st.text(max_size=70))
def test_no_accepted_name_leaves_its_folder_or_key(text: str) -> None:
    if is_name(text):
        assert not set(text) & set("/\\:*?[]{} \n\0")
        assert text not in {".", ".."}


def test_lanes_say_whose_they_are() -> None:
    assert disk_lane("primary", TransportMode.NETWORK, None) == "disk.primary.network"
    assert disk_lane("primary", TransportMode.DIRECT_STORAGE, "ds1") == "disk.primary.direct_storage.ds1"
    assert proxy_lane("primary", "alpha") == "proxy.primary.alpha"
    assert repository_lane("main") == "repository.main"


def test_only_moving_a_disk_and_running_a_vm_take_a_slot() -> None:
    assert {kind for kind in TaskKind if kind.takes_slot} == {
        *(TaskKind.DISK_BACKUP, TaskKind.DISK_RESTORE, TaskKind.DISK_COPY),
        *(TaskKind.DISK_RECEIVE, TaskKind.DISK_REPLICATE),
        TaskKind.POINT_BOOT,
    }
