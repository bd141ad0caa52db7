"""What a pool process keeps open from one task to the next: opening a repository anew would cost seconds."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proxy_worker.config import ProxyConfiguration
from proxy_worker.contract.errors import CredentialError
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.contract.subjects import RepositoryReference
from proxy_worker.ledger import Ledger, ProxyIdentity
from proxy_worker.node.draining import Draining
from proxy_worker.node.obeyed import Obeyed
from proxy_worker.node.tally import Tally
from proxy_worker.repository.credentials import Credential, load_credential
from proxy_worker.repository.reconfiguring import is_newest
from proxy_worker.repository.repository import Repository, open_store
from proxy_worker.repository.store import Store
from proxy_worker.transport.vsphere_access import VsphereAccess

KEY_SUFFIX = ".key"
PHRASE_SUFFIX = ".passphrase"
ACCESS_KEY_SUFFIX = ".s3"
UPKEEP_PROCESSES = 1
"""Pool processes beyond the slots: scans, listings and commits need not wait for disks."""


class NoSecretError(CredentialError):
    """This proxy has no secret of that name."""


class Bench:
    """Made before the fork, opened after it: each pool process has connections and repositories of its own."""

    def __init__(
        self,
        configuration: ProxyConfiguration,
        identity: ProxyIdentity,
        draining: Draining,
        vsphere: VsphereOffer | None = None,
    ) -> None:
        """`vsphere` is what the proxy registered that it can do with vCenters."""
        self.configuration = configuration
        self.identity = identity
        self.draining = draining
        self.public_keys: tuple[Ed25519PublicKey, ...] = configuration.public_keys()
        self.obeyed = Obeyed(configuration.state_dir)
        self.tally = Tally(configuration.max_concurrent_tasks + UPKEEP_PROCESSES)
        self.failures_in_a_row = 0
        """Tasks of this process that failed since the last one that didn't."""
        self._vsphere_offer = vsphere or VsphereOffer()
        self._repositories: dict[tuple[str, str | None, str], Repository] = {}

    @cached_property
    def ledger(self) -> Ledger:
        """This process's connection to the ledger."""
        return Ledger(self.configuration.redis_access())

    @cached_property
    def vsphere(self) -> VsphereAccess:
        """This process's way to vCenters."""
        return VsphereAccess(
            secrets_dir=self.configuration.secrets_dir,
            state_dir=self.configuration.state_dir,
            offer=self._vsphere_offer,
            vddk_libdir=self.configuration.vddk_libdir,
            ca_file=self.configuration.vcenter_ca_file,
            guest_disks_dir=self.configuration.guest_disks_dir,
            encryption_to_host=self.configuration.encryption_to_host,
        )

    def repository(self, reference: RepositoryReference, need: Literal["read", "write"]) -> Repository:
        """An open repository; raises what opening one raises, and `NoSecretError`."""
        place = (reference.location, reference.credential, need)
        known = self._repositories.get(place)
        if known is not None and not is_newest(known.access.store, known.access.config):
            # A key was revoked, or the key pair rotated: that counts from the next task on.
            self._repositories.pop(place).close()
        if place not in self._repositories:
            self._repositories[place] = self.open_repository(reference, need)
        return self._repositories[place]

    def open_repository(self, reference: RepositoryReference, need: Literal["read", "write"]) -> Repository:
        """The same, opened anew for whoever asks, who closes it."""
        return Repository.open(
            self.store(reference),
            self._credential(reference, need),
            cache_dir=self.configuration.state_dir / "index",
        )

    def store(self, reference: RepositoryReference) -> Store:
        """Where a repository lies, with the access key that is among the secrets for it, if any."""
        access_key = self.configuration.secrets_dir / f"{reference.credential}{ACCESS_KEY_SUFFIX}"
        return open_store(
            reference.location,
            access_key_file=access_key if access_key.exists() else None,
            identity=self.configuration.link_identity(),
            networks=reference.preferred_networks,
        )

    def forget_repositories(self) -> None:
        """Open them anew next time: after an error, what is remembered of them may be what is wrong."""
        while self._repositories:
            self._repositories.popitem()[1].close()

    def _credential(self, reference: RepositoryReference, need: Literal["read", "write"]) -> Credential:
        if reference.credential is None:
            return load_credential()
        secrets = self.configuration.secrets_dir
        key, passphrase = (secrets / f"{reference.credential}{suffix}" for suffix in (KEY_SUFFIX, PHRASE_SUFFIX))
        # A key spares the passphrase's slow derivation, but the key of a proxy is mostly one that can't read.
        if key.exists() and (need == "write" or not passphrase.exists()):
            return load_credential(key_file=key)
        if passphrase.exists():
            return load_credential(passphrase_file=passphrase)
        raise NoSecretError(
            f"repository {reference.name}",
            why=f"proxy {self.identity.name} has neither {key.name} nor {passphrase.name} in {secrets}",
            remedy="Put one there (`proxy-worker repository keys export-write` makes a key that only backs up).",
        )


def held_credentials(secrets_dir: Path) -> dict[str, Literal["read", "write"]]:
    """Which repository credentials lie in a secrets folder, and what they are good for."""
    held: dict[str, Literal["read", "write"]] = {}
    for path in sorted(secrets_dir.glob(f"*{KEY_SUFFIX}")):
        key = load_credential(key_file=path).key
        held[path.stem] = key.kind if key is not None else "write"
    held.update({path.stem: "read" for path in secrets_dir.glob(f"*{PHRASE_SUFFIX}")})
    return held
