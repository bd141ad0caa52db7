"""A proxy acts on exactly what a scheduler it knows has signed, once, for this task and dispatch."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.disks import DiskBackup
from proxy_worker.contract.signing import (
    SpecificationError,
    decode_public_key,
    encode_public_key,
    sign,
    verify,
)
from proxy_worker.contract.specification import InventoryScan, TaskSpecification
from proxy_worker.contract.subjects import (
    DiskAddress,
    DiskIdentity,
    Extent,
    RepositoryReference,
    TransportPreference,
    VcenterReference,
    VmIdentity,
    VsphereDisk,
)

KEY = Ed25519PrivateKey.generate()
SPECIFICATION = TaskSpecification(
    epoch=3,
    task_id="t-1",
    dispatch_number=2,
    audience="proxy.alpha",
    expires_at=1000.0,
    body=InventoryScan(datastore="ds1"),
)
SIGNED = sign(SPECIFICATION, KEY)


def check(
    signed: bytes = SIGNED, *, task_id: str = "t-1", dispatch_number: int = 2, now: float = 999.0
) -> TaskSpecification:
    return verify(signed, [KEY.public_key()], task_id=task_id, dispatch_number=dispatch_number, now=now)


def test_what_was_signed_is_what_is_verified() -> None:
    assert check() == SPECIFICATION


def test_a_proxy_of_an_older_version_gets_no_keys_that_it_does_not_know() -> None:
    reference = VcenterReference(name="vc1", host="vc1", user="u", credential="vc1", authorities="-----BEGIN")
    disk = VsphereDisk(vcenter=reference, vm="vm-1", key=1, path="[a] b", controller="scsi", datastore_type="VMFS")
    backup = DiskBackup(
        run="run-1",
        job="nightly",
        vm=VmIdentity.of_name("web"),
        disk=DiskIdentity(key="scsi0:0", address=DiskAddress(vsphere=disk)),
        transport=TransportPreference(),
        repository=RepositoryReference(name="main", location="/backup"),
        areas_in_use=(Extent(offset=0, length=1),),
    )
    for version, known in ((None, False), (2, True)):
        signed = sign(SPECIFICATION.model_copy(update={"body": backup, "contract_version": version}), KEY)
        assert (b"areas_in_use" in signed, b"authorities" in signed) == (known, known)
        assert isinstance(check(signed).body, DiskBackup)


def test_one_of_several_pinned_keys_is_enough() -> None:
    other = Ed25519PrivateKey.generate().public_key()
    assert verify(SIGNED, [other, KEY.public_key()], task_id="t-1", dispatch_number=2, now=0) == SPECIFICATION


@given(position=st.integers(0, len(SIGNED) - 1), flip=st.integers(1, 255))
def test_any_altered_byte_is_refused(position: int, flip: int) -> None:
    altered = bytearray(SIGNED)
    altered[position] ^= flip
    with pytest.raises(SpecificationError, match="not signed by a scheduler this proxy knows"):
        check(bytes(altered))


@given(length=st.integers(0, len(SIGNED) - 1))
def test_any_truncation_is_refused(length: int) -> None:
    with pytest.raises(SpecificationError):
        check(SIGNED[:length])


def test_a_stranger_s_signature_is_refused() -> None:
    with pytest.raises(SpecificationError, match="put the new public half"):
        check(sign(SPECIFICATION, Ed25519PrivateKey.generate()))


def test_a_specification_of_another_task_or_dispatch_is_refused() -> None:
    with pytest.raises(SpecificationError, match="another task or dispatch"):
        check(task_id="t-2")
    with pytest.raises(SpecificationError, match="another task or dispatch"):
        check(dispatch_number=3)


def test_an_expired_specification_is_refused() -> None:
    with pytest.raises(SpecificationError, match="expired"):
        check(now=1000.1)


def test_a_signed_specification_of_a_newer_contract_asks_for_an_upgrade() -> None:
    payload = SPECIFICATION.model_dump_json().replace("inventory.scan", "disk.teleport").encode()
    signed = KEY.sign(b"proxyfleet task specification 1\0" + payload) + payload
    with pytest.raises(SpecificationError, match="Upgrade this proxy"):
        check(signed)


def test_public_keys_survive_their_text_form() -> None:
    text = encode_public_key(KEY.public_key())
    assert encode_public_key(decode_public_key(text)) == text


@given(st.text(max_size=80))
def test_anything_else_is_not_a_public_key(text: str) -> None:
    if text != encode_public_key(KEY.public_key()):
        with pytest.raises(SpecificationError, match="not the base64"):
            decode_public_key(text)
