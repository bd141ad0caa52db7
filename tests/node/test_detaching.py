"""Disks that a dead life of the proxy left attached: detached first, and no reason not to start."""

from __future__ import annotations

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.contract.versions import CONTRACT_VERSION
from proxy_worker.node.detaching import Detacher
from proxy_worker.transport.attachments import Attachment
from proxy_worker.transport.hot_add import journal_of
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.vsphere import hot_add
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Session
from tests.simulators.vsphere.simulator import VsphereSimulator
from tests.tasks.fleet import wait_until
from tests.transport.hot_adding import Source, access, guest, hanging, proxy, source
from tests.vsphere.conftest import IMPATIENT

__all__ = ["access", "guest", "proxy", "source"]
APPLIANCE = TransportMode.VIRTUAL_APPLIANCE


def leave_attached(session: Session, proxy: Vm, access: VsphereAccess, source: Source) -> None:
    """As a process does that is killed while it reads."""
    frozen = source.snapshot.disks[0]
    attachment = Attachment(
        vcenter=source.vcenter, proxy_vm=proxy.ref, path=frozen.path or "", uuid=frozen.uuid or ""
    )
    with journal_of(access).attaching(1), journal_of(access).write(attachment):
        hot_add.attach(session, proxy.ref, frozen, IMPATIENT)


def registration(access: VsphereAccess) -> ProxyRegistration:
    return ProxyRegistration(
        name="proxy-1",
        instance_id="i",
        site="primary",
        max_concurrent_tasks=2,
        datastores={},
        modes=(),
        credentials={},
        vsphere=access.offer,
        version="1",
        contract_version=CONTRACT_VERSION,
    )


def test_what_is_left_is_detached_before_the_proxy_registers(
    session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    leave_attached(session, proxy, access, source)
    detacher = Detacher(access)
    assert APPLIANCE not in detacher.limited(registration(access)).vsphere.modes, "nobody has looked yet"
    detacher.start()
    assert hanging(session, proxy) == set()
    assert detacher.limited(registration(access)) == registration(access)
    detacher.stop()


def test_a_vcenter_that_is_away_keeps_the_mode_from_being_offered_until_it_is_back(
    vsphere: VsphereSimulator, session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    leave_attached(session, proxy, access, source)
    vsphere.go_wrong("Login", "drop", times=0)
    heard: list[str | None] = []
    detacher = Detacher(access, again_s=0.05)
    detacher.start(within_s=0.5)  # a login that gets no answer is tried for longer
    detacher.watch(lambda: heard.append(detacher.reason))
    # A child of this process that hasn't got to its exec yet may hold the disk's lock for a moment.
    wait_until(lambda: detacher.reason is not None, "the reason to be known")
    offer = detacher.limited(registration(access)).vsphere
    assert APPLIANCE not in offer.modes
    assert "may still be attached to its VM" in offer.refusals[APPLIANCE]

    vsphere.reset()
    wait_until(lambda: detacher.reason is None, "the disk is detached")
    wait_until(lambda: heard[-1] is None, "the proxy says so")
    assert hanging(session, proxy) == set()
    assert APPLIANCE in detacher.limited(registration(access)).vsphere.modes
    detacher.stop()


def test_what_is_in_use_is_no_reason(session: Session, proxy: Vm, access: VsphereAccess, source: Source) -> None:
    frozen = source.snapshot.disks[0]
    attachment = Attachment(vcenter=source.vcenter, proxy_vm=proxy.ref, path=frozen.path or "", uuid="u")
    with journal_of(access).attaching(1):
        entry = journal_of(access).write(attachment)
    detacher = Detacher(access)
    detacher.start()
    assert detacher.reason is None
    assert len(journal_of(access).all()) == 1
    entry.forget()
    detacher.stop()
