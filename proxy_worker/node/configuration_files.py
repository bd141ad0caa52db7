"""Files of a VM's configuration, wherever its inventory has them."""

from __future__ import annotations

import posixpath

from proxy_worker.contract.subjects import DiskAddress
from proxy_worker.mover.configuration import ConfigurationFile
from proxy_worker.node.bench import Bench
from proxy_worker.transport.inventory import read_configuration
from proxy_worker.transport.vsphere_access import fetch_configuration


def read_configuration_file(address: DiskAddress, bench: Bench) -> ConfigurationFile:
    """One of them, whole. Raises SourceError, NotFoundError, CredentialError."""
    if address.vsphere_file is not None:
        content = fetch_configuration(address.vsphere_file, bench.vsphere)
        return ConfigurationFile(name=posixpath.basename(address.vsphere_file.path), content=content)
    content = read_configuration(address, bench.configuration.connections)
    return ConfigurationFile(name=posixpath.basename(address.path or ""), content=content)
