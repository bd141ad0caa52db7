"""What a pool process of a proxy has at hand, without the proxy."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from proxy_worker.config import ProxyConfiguration
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.ledger import ProxyIdentity
from proxy_worker.node.bench import Bench
from proxy_worker.node.draining import Draining
from proxy_worker.transport.connections import DatastoreConnection


def bench_of(
    folder: Path,
    *,
    name: str = "proxy-1",
    datastores: Mapping[str, Path] | None = None,
    vsphere: VsphereOffer | None = None,
) -> Bench:
    """A proxy's whose secrets are in `folder/secrets`, and that mounts these datastores."""
    configuration = ProxyConfiguration(
        name=name,
        site="primary",
        state_dir=folder / f"state-{name}",
        secrets_dir=folder / "secrets",
        scheduler_public_keys=(base64.b64encode(b"k" * 32).decode(),),
        datastores={datastore: DatastoreConnection(path=path) for datastore, path in (datastores or {}).items()},
    )
    return Bench(configuration, ProxyIdentity(name=name, instance_id="1", life="1"), Draining(), vsphere=vsphere)
