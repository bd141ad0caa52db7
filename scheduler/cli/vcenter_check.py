"""Logging in at a vCenter to see whether it is trusted, lets the account in, and lets it do what is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy_worker.vsphere.faults import MissingPrivilegeError
from proxy_worker.vsphere.privileges import Purpose, missing_privileges
from proxy_worker.vsphere.session import Endpoint, Patience, Session, read_password
from proxy_worker.vsphere.tags import read_tags
from proxy_worker.vsphere.trust import Trust
from scheduler.cli.vcenter_record import MissingPrivilege, VcenterCheck
from scheduler.state.models import Vcenter

_PATIENCE: Final = Patience(total_s=5.0)
TIMEOUT_S: Final = 20.0
"""For one answer: whoever checks a vCenter is waiting."""
_PURPOSES: Final = {
    "backup": Purpose.BACKUP,
    "hot-add": Purpose.HOT_ADD,
    "restore": Purpose.RESTORE,
    "instant-restore": Purpose.INSTANT_RESTORE,
    "replica": Purpose.REPLICA,
}


def check_vcenter(vcenter: Vcenter, secrets_dir: Path, purposes: Sequence[str]) -> VcenterCheck:
    """Log in, ask for every privilege of these purposes at the root, and read the tags.

    Raises the named errors of `proxy_worker.vsphere`: unreachable, not trusted, password refused, and so on.
    """
    endpoint = endpoint_of(vcenter)
    password = read_password(endpoint, secrets_dir)
    with Session(endpoint, password) as session:
        about = session.content.about
        missing = missing_privileges(session, [_PURPOSES[purpose] for purpose in purposes])
    tags = read_tags(endpoint, password)
    return VcenterCheck(
        vcenter=vcenter.name,
        host=vcenter.host,
        port=vcenter.port,
        user=vcenter.user,
        trusted_by="thumbprint" if vcenter.thumbprint is not None else "authority",
        product=str(about.fullName),
        tagged_objects=len(tags),
        missing=tuple(
            MissingPrivilege(
                privilege=one.privilege.id,
                name=one.privilege.label,
                purpose=next(name for name, purpose in _PURPOSES.items() if purpose is one.privilege.purpose),
            )
            for one in missing
        ),
        exit_code=MissingPrivilegeError.exit_code if missing else 0,
    )


def endpoint_of(vcenter: Vcenter) -> Endpoint:
    """Where a declared vCenter is, for one short visit."""
    return Endpoint(
        name=vcenter.name,
        host=vcenter.host,
        port=vcenter.port,
        user=vcenter.user,
        credential=vcenter.credential,
        trust=Trust(vcenter.thumbprint, Path(vcenter.ca_file) if vcenter.ca_file is not None else None),
        timeout_s=TIMEOUT_S,
        patience=_PATIENCE,
    )
