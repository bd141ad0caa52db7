"""Which versions of the contract a scheduler serves while a fleet is upgraded."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proxy_worker.contract.signing import sign, verify
from proxy_worker.contract.specification import InventoryScan, TaskSpecification
from proxy_worker.contract.versions import (
    CONTRACT_VERSION,
    OLDEST_SERVED,
    ContractVersionError,
    in_words_of,
    why_not_served,
    written_for,
)


def specification(version: int | None) -> TaskSpecification:
    return TaskSpecification(
        epoch=1,
        task_id="t",
        dispatch_number=1,
        audience="proxy.primary.proxy-1",
        expires_at=10,
        contract_version=version,
        body=InventoryScan(datastore="ds"),
    )


def test_own_and_older_versions_are_served_and_others_told_what_to_upgrade() -> None:
    assert [why_not_served(version) for version in range(OLDEST_SERVED, CONTRACT_VERSION + 1)] == [""] * 3
    assert why_not_served(OLDEST_SERVED - 1).endswith("upgrade the proxy")
    assert why_not_served(CONTRACT_VERSION + 1).endswith("upgrade the scheduler")


def test_specifications_are_written_for_the_oldest_that_is_served() -> None:
    assert written_for([CONTRACT_VERSION, OLDEST_SERVED, OLDEST_SERVED - 1, 99]) == OLDEST_SERVED
    assert written_for([]) == CONTRACT_VERSION


def test_what_the_first_version_reads_says_nothing_of_versions() -> None:
    assert b"contract_version" not in sign(specification(None), Ed25519PrivateKey.generate())


@pytest.mark.parametrize("version", [None, 1, CONTRACT_VERSION])
def test_a_proxy_reads_its_own_version_and_older_ones(version: int | None) -> None:
    key = Ed25519PrivateKey.generate()
    signed = sign(specification(version), key)

    assert verify(signed, [key.public_key()], task_id="t", dispatch_number=1, now=0) == specification(version)


def test_a_newer_specification_is_refused_by_name_and_may_be_tried_elsewhere() -> None:
    key = Ed25519PrivateKey.generate()
    signed = sign(specification(CONTRACT_VERSION + 1), key)

    with pytest.raises(ContractVersionError, match="Upgrade this proxy") as refused:
        verify(signed, [key.public_key()], task_id="t", dispatch_number=1, now=0)

    assert refused.value.retryable


def test_an_older_proxy_is_told_what_it_knows_in_the_place_of_newer_values() -> None:
    asked = {"level": "auto", "job": "auto", "disk": {"level": "auto"}, "areas": [["level", "auto"]]}

    assert in_words_of(2, asked) == {
        "level": "optimal",
        "job": "auto",
        "disk": {"level": "optimal"},
        "areas": [["level", "auto"]],
    }
    assert in_words_of(CONTRACT_VERSION, asked) == asked
