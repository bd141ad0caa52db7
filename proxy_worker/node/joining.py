"""Joining the fleet: what a proxy says of itself, and how it waits for the ledger and for its name."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import time
from typing import Final

from proxy_worker.boot.proof import QEMU
from proxy_worker.config import ProxyConfiguration
from proxy_worker.contract.errors import LedgerError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.offers import ProxyRegistration, ReplicationOffer, UseOffer
from proxy_worker.contract.versions import CONTRACT_VERSION
from proxy_worker.ledger import Ledger, ProxyIdentity, ProxyNameTakenError
from proxy_worker.node.address import address_towards
from proxy_worker.node.bench import held_credentials
from proxy_worker.transport.probing import probe_vsphere
from proxy_worker.transport.storage_snapshot.making import unusable

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0


def describe(configuration: ProxyConfiguration, identity: ProxyIdentity) -> ProxyRegistration:
    """What this proxy offers; raises `CredentialError` when a key in its secrets folder can't be read."""
    connections = configuration.connections
    vsphere = probe_vsphere(
        connections,
        secrets_dir=configuration.secrets_dir,
        vddk_libdir=configuration.vddk_libdir,
        product_uuid=configuration.product_uuid,
    )
    offered = connections.offered(vsphere)
    no_snapshots = unusable(connections)
    for name, why in no_snapshots.items():
        log.warning("datastore %s gets no storage snapshots by this proxy: %s", name, why)
        offered[name] = tuple(mode for mode in offered[name] if mode is not TransportMode.STORAGE_SNAPSHOT)
    if no_snapshots:
        refusals = {**vsphere.refusals, TransportMode.STORAGE_SNAPSHOT: "; ".join(no_snapshots.values())}
        vsphere = vsphere.model_copy(update={"refusals": refusals})
    address = str(configuration.address or address_towards(configuration.redis.url) or "") or None
    return ProxyRegistration(
        name=identity.name,
        instance_id=identity.instance_id,
        site=configuration.site,
        max_concurrent_tasks=configuration.max_concurrent_tasks,
        datastores=offered,
        modes=connections.offered_without_datastore(),
        credentials=held_credentials(configuration.secrets_dir),
        vsphere=vsphere,
        left_out=connections.left_out(),
        address=address,
        replication=_replication_offer(configuration, address),
        tends_gateways=_tends_gateways(configuration),
        use=_use(configuration),
        version=importlib.metadata.version("proxyfleet"),
        contract_version=CONTRACT_VERSION,
    )


def _use(configuration: ProxyConfiguration) -> UseOffer:
    instant = configuration.instant_restore
    return UseOffer(boots=shutil.which(QEMU) is not None, served_at=instant.host if instant is not None else None)


def _replication_offer(configuration: ProxyConfiguration, address: str | None) -> ReplicationOffer | None:
    host = configuration.replication.host or address
    return ReplicationOffer(host=host) if host and configuration.link_identity() is not None else None


def _tends_gateways(configuration: ProxyConfiguration) -> bool:
    identity = configuration.link_identity()
    if identity is None:
        return False
    from proxy_worker.link.admission import Role, own_role  # noqa: PLC0415 - only where links are used

    return own_role(identity) is Role.GATEWAY


def join(ledger: Ledger, registration: ProxyRegistration, identity: ProxyIdentity) -> None:
    """Register; waits for a Redis that doesn't answer, however long, and says so.

    A name whose holder is heard of again is refused at once (`ProxyNameTakenError`); a holder that is silent, as
    after a reboot of this machine, is waited out. Other errors of the ledger are raised.
    """
    told = False
    silent_since: float | None = None
    while True:
        try:
            given_back = ledger.register(registration, identity)
        except ProxyNameTakenError as error:
            if silent_since is None:
                silent_since = time.monotonic()
                log.warning("%s; waiting to hear whether it is still there", error)
            if error.heard_ago_s < time.monotonic() - silent_since:
                raise
        except LedgerError as error:
            if not error.retryable:
                raise
            if not told:
                log.warning("waiting for the ledger: %s", error)
                told = True
        else:
            for task_id in given_back:
                log.info("task %s, which this proxy's former life had, is ready again", task_id)
            return
        time.sleep(RETRY_S)
