"""Which mode a disk is read by, and why not by another."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy_worker.contract.names import AUTOMATIC, TransportMode
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.contract.selection import ModeChoice
from proxy_worker.contract.selection import choose_modes as choose_by_offer
from proxy_worker.contract.subjects import DiskAddress, TransportPreference
from proxy_worker.transport.connections import Connections, DatastoreConnection
from proxy_worker.transport.select import NoTransportError, open_disk

DIRECT, NETWORK = TransportMode.DIRECT_STORAGE, TransportMode.NETWORK
SNAPSHOT, APPLIANCE = TransportMode.STORAGE_SNAPSHOT, TransportMode.VIRTUAL_APPLIANCE
PATH = DatastoreConnection(path=Path("/ds1"))
URI = DatastoreConnection(network_uri="nbd://esx1/{path}")
BOTH = DatastoreConnection(path=Path("/ds1"), network_uri="nbd://esx1/{path}")
ON_DS1 = DiskAddress(datastore="ds1", path="web01/web01.vmdk")
BEHIND_NBD = DiskAddress(nbd_uri="nbd://array/lun7")


def choose_modes(address: DiskAddress, preference: TransportPreference, connections: Connections) -> ModeChoice:
    return choose_by_offer(address, connections.offer(VsphereOffer()), preference)


@pytest.mark.parametrize(
    ("connection", "wanted", "failover", "candidates"),
    [
        (BOTH, AUTOMATIC, True, (DIRECT, NETWORK)),
        (BOTH, AUTOMATIC, False, (DIRECT,)),
        (PATH, AUTOMATIC, True, (DIRECT,)),
        (URI, AUTOMATIC, False, (NETWORK,)),
        (None, AUTOMATIC, True, ()),
        (BOTH, DIRECT, True, (DIRECT, NETWORK)),
        (BOTH, DIRECT, False, (DIRECT,)),
        (BOTH, NETWORK, True, (NETWORK,)),
        (URI, DIRECT, True, (NETWORK,)),
        (URI, DIRECT, False, ()),
        (BOTH, SNAPSHOT, True, (NETWORK,)),
        (BOTH, SNAPSHOT, False, ()),
        (PATH, APPLIANCE, True, ()),
    ],
)
def test_the_modes_to_try_for_a_disk_in_a_datastore(
    connection: DatastoreConnection | None,
    wanted: TransportMode,
    failover: bool,
    candidates: tuple[TransportMode, ...],
) -> None:
    connections = Connections(datastores={"ds1": connection} if connection else {})
    preference = TransportPreference(mode=wanted, failover_to_network=failover)
    assert choose_modes(ON_DS1, preference, connections).candidates == candidates


def test_a_disk_behind_an_nbd_server_is_read_in_network_mode_only() -> None:
    choice = choose_modes(BEHIND_NBD, TransportPreference(), Connections())
    assert choice.candidates == (NETWORK,)
    assert "an NBD server offers the disk" in choice.reason(NETWORK, TransportPreference())


def test_a_proxy_that_may_use_network_mode_only() -> None:
    connections = Connections(datastores={"ds1": BOTH}, modes=(NETWORK,))
    choice = choose_modes(ON_DS1, TransportPreference(), connections)
    assert choice.candidates == (NETWORK,)
    assert "no direct_storage: this proxy's transport_modes leave it out" in choice.reason(
        NETWORK, TransportPreference()
    )


def test_the_reason_names_every_better_mode_and_why_not() -> None:
    choice = choose_modes(ON_DS1, TransportPreference(), Connections(datastores={"ds1": URI}))
    assert choice.reason(NETWORK, TransportPreference()) == (
        "network, automatic choice (no storage_snapshot: no vCenter has the disk; "
        "no direct_storage: datastore ds1 has no path on this proxy; "
        "no virtual_appliance: no vCenter has the disk)"
    )


def test_no_mode_at_all_is_an_error_that_says_why_for_each() -> None:
    with pytest.raises(
        NoTransportError, match="direct_storage: this proxy isn't connected to datastore ds1"
    ) as failure:
        open_disk(ON_DS1, TransportPreference(), Connections())
    assert all(mode in str(failure.value) for mode in TransportMode)


@given(
    wanted=st.sampled_from([AUTOMATIC, *TransportMode]),
    failover=st.booleans(),
    allowed=st.sets(st.sampled_from(list(TransportMode))),
    connection=st.sampled_from([None, PATH, URI, BOTH]),
    address=st.sampled_from([ON_DS1, BEHIND_NBD]),
)
def test_a_choice_is_ordered_allowed_and_explained(
    *,
    wanted: TransportMode,
    failover: bool,
    allowed: set[TransportMode],
    connection: DatastoreConnection | None,
    address: DiskAddress,
) -> None:
    connections = Connections(datastores={"ds1": connection} if connection else {}, modes=tuple(allowed))
    preference = TransportPreference(mode=wanted, failover_to_network=failover)
    choice = choose_modes(address, preference, connections)
    assert list(choice.candidates) == [mode for mode in TransportMode if mode in choice.candidates]
    assert set(choice.candidates) <= allowed
    if not failover:
        assert len(choice.candidates) <= 1
        assert wanted == AUTOMATIC or set(choice.candidates) <= {wanted}
    assert [verdict.mode for verdict in choice.verdicts] == list(TransportMode)
    for verdict in choice.verdicts:
        assert verdict.refusal is None or "{" not in verdict.refusal
        assert failover is False or (verdict.refusal is None) == (verdict.mode in choice.candidates)


@pytest.mark.parametrize(
    "settings",
    [
        {"network_uri": "nbd://a/{disk}"},
        {"network_command": ("nbdkit", "file", "{path}")},
        {"network_uri": "nbd://a/{path}", "network_command": ("nbdkit", "{socket}")},
    ],
)
def test_templates_that_can_not_work_are_refused_at_once(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DatastoreConnection.model_validate(settings)


def test_what_a_proxy_registers() -> None:
    connections = Connections(datastores={"ds1": BOTH, "ds2": URI}, modes=(NETWORK,))
    assert connections.offered() == {"ds1": (NETWORK,), "ds2": (NETWORK,)}
    assert connections.offered_without_datastore() == (NETWORK,)
    assert Connections(datastores={"ds1": BOTH}).offered() == {"ds1": (DIRECT, NETWORK)}
