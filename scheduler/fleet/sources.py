"""What `fleet.toml` says of where VMs are: sites, vCenters, datastores and VMs behind NBD servers."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from proxy_worker.contract.subjects import DiskKey, Name
from scheduler.fleet.dispatching import Latency
from scheduler.fleet.values import Declared, NbdUri, Slots, ThumbprintText
from scheduler.planning.addressees import CaFile
from scheduler.state.declared import DatastoreKind


class Site(Declared):
    """A place where proxies, datastores and repositories stand close together."""

    name: Name
    """The site's name."""


class Vcenter(Declared):
    """A vCenter or ESXi host whose VMs are protected. Its certificate is verified, unless it is pinned."""

    name: Name
    """The name that datastores and jobs know it by."""
    host: Annotated[str, Field(min_length=1, max_length=255)]
    """Its host name or address."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 443
    """Its HTTPS port."""
    user: Annotated[str, Field(min_length=1, max_length=255)]
    """The service account, e.g. `backup@vsphere.local`."""
    credential: Name
    """The secret with the account's password: `<credential>.password` in the secrets folder of the scheduler, and
    of each proxy that reads over virtual appliance or network mode."""
    thumbprint: ThumbprintText | None = None
    """The SHA-1 or SHA-256 of its certificate, which is pinned by it instead of being verified."""
    ca_file: CaFile | None = None
    """A file of certificate authorities, as an absolute path, that verify its certificate; without this key, the
    system's do."""
    max_sessions: Annotated[int, Field(ge=1, le=64)] = 4
    """How many logins the scheduler may have there at once."""
    site: Name
    """The site it stands at."""

    @model_validator(mode="after")
    def _trusted_one_way(self) -> Self:
        if self.thumbprint is not None and self.ca_file is not None:
            raise ValueError("expected 'thumbprint' or 'ca_file', got both: a pinned certificate isn't verified")
        return self


class Datastore(Declared):
    """Where VMs' disks lie. Which path or server that is, each proxy's own `proxy.toml` says.

    A vCenter's datastore needs no declaration for its VMs to be protected, only for proxies to be told how to reach
    it directly.
    """

    name: Name
    """The datastore's name, the same on all proxies that reach it."""
    kind: DatastoreKind = DatastoreKind.DIRECTORY
    """How its VMs are found: `directory` reads the VMX files in a folder; with `vsphere`, vCenter tells."""
    site: Name
    """The site it stands at."""
    vcenter: Name | None = None
    """The vCenter that has it, for kind `vsphere`."""
    vsphere_name: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """What that vCenter calls it, where it is another name; with the datacentre before it where several have one of
    that name: `DC0/datastore1`."""
    max_concurrent_tasks: Slots | None = None
    """How many disks of it are moved at once; without this key, as many as slots allow."""
    latency: Latency | None = None
    """What is done when it takes long to answer; without this key, what `[dispatch]` says."""

    @model_validator(mode="after")
    def _whose(self) -> Self:
        if self.kind is DatastoreKind.VSPHERE and self.vcenter is None:
            raise ValueError("the key 'vcenter' is missing, which kind 'vsphere' needs")
        if self.kind is not DatastoreKind.VSPHERE and (self.vcenter or self.vsphere_name):
            raise ValueError(f"'vcenter' and 'vsphere_name' are for kind 'vsphere', got kind {self.kind.value!r}")
        return self


class VmDisk(Declared):
    """A disk behind an NBD server."""

    key: DiskKey
    """Its place in the VM, e.g. `scsi0:0`."""
    nbd_uri: NbdUri
    """Where it is served: an `nbd://`, `nbds://`, `nbd+unix://` or `nbds+unix://` address."""


class Vm(Declared):
    """A VM whose disks are behind NBD servers. VMs in datastores are found there and not declared."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    """The VM's name, which jobs' patterns match."""
    disks: Annotated[tuple[VmDisk, ...], Field(min_length=1)]
    """Its disks."""
