"""A live fleet whose VMs are a simulated vCenter's: the stand-in for VDDK, a mounted datastore, a proxy in a VM."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from pyVmomi import vim

from ops.demo.layout import Layout, ProxyPlace
from ops.demo.processes import marked
from proxy_worker.vsphere.inventory import read_inventory
from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import Mark
from proxy_worker.vsphere.tasks import finish
from tests.simulators.vsphere.guest import SimulatedGuest
from tests.simulators.vsphere.program import NBDKIT, PASSWORD, USER, VsphereSimulator, running
from tests.system.live_fleet import LiveFleet, explained
from tests.vsphere.conftest import endpoint_of
from tests.vsphere.machines import MIB, make_vm

VMFS, NFS = "LocalDS_0", "LocalDS_1"
PROXIES = tuple(ProxyPlace(f"proxy-{number}", "primary", "ds") for number in (1, 2, 3))
MOUNTING, IN_A_VM = PROXIES[0].name, PROXIES[2].name
"""The proxy that has the NFS datastore mounted, and the one that is a VM of the vCenter."""
VCENTER = """
[[vcenter]]
name = "vc1"
host = "{host}"
port = {port}
user = "{user}"
credential = "vc1"
thumbprint = "{thumbprint}"
site = "primary"
[[datastore]]
name = "{nfs}"
kind = "vsphere"
vcenter = "vc1"
site = "primary"
"""


SERVING = """
[local_proxy.instant_restore]
host = "127.0.0.1"
clients = ["127.0.0.0/8"]
listen = "127.0.0.1"
port = {port}
portmapper = false
"""


def declared(simulator: VsphereSimulator) -> str:
    """The vCenter and its NFS datastore, in fleet.toml's words."""
    endpoint = endpoint_of(simulator)
    thumbprint = endpoint.trust.thumbprint or ""
    return VCENTER.format(host=endpoint.host, port=endpoint.port, user=USER, thumbprint=thumbprint, nfs=NFS)


def vddk_environment(simulator: VsphereSimulator) -> dict[str, str]:
    """What proxies need to find the stand-in for VDDK, and that to find the disks."""
    return {
        "PATH": f"{NBDKIT.parent}:{os.environ['PATH']}",
        "SIMULATED_VDDK_DISKS": str(simulator.frozen),
        "SIMULATED_VDDK_PASSWORD": PASSWORD,
    }


def write_password(layout: Layout) -> None:
    """The vCenter's, for the server and for the proxies."""
    for holder in ("server", "proxies"):
        layout.write_secret(layout.secrets(holder) / "vc1.password", PASSWORD)


class VsphereFleet(LiveFleet):
    """Three proxies: with the NFS datastore mounted, with VDDK alone, and in a VM of the vCenter."""

    datastores = ""

    def __init__(
        self,
        state: Path,
        simulator: VsphereSimulator,
        guest: SimulatedGuest,
        own_uuid: str,
        jobs: str,
        *,
        provider: str | None = None,
        nfs_port: int | None = None,
    ) -> None:
        """`guest` shows the disks of the VM whose BIOS uuid is `own_uuid`; `jobs` are in fleet.toml's words.

        With a `provider`, the NFS datastore's storage makes snapshots. With an `nfs_port`, the
        server's own proxy serves restore points to hosts there.
        """
        self._provider = provider
        self._nfs_port = nfs_port
        self.simulator = simulator
        self._guest = guest
        self._own_uuid = own_uuid
        self.thumbprint = endpoint_of(simulator).trust.thumbprint or ""
        super().__init__(state, PROXIES, declared(simulator) + jobs)
        self.extra = vddk_environment(simulator)

    def _write_files(self) -> None:
        super()._write_files()
        write_password(self.layout)
        if self._nfs_port is not None:
            with self.layout.scheduler_config.open("a") as file:
                file.write(SERVING.format(port=self._nfs_port))

    def _configure(self, proxy: ProxyPlace) -> None:
        super()._configure(proxy)
        config = self.layout.proxy_config(proxy.name)
        text, _, _ = config.read_text().partition("[datastores.")
        in_a_vm = proxy.name == IN_A_VM
        head = f'product_uuid = "{self._own_uuid if in_a_vm else ""}"\nguest_disks_dir = "{self._guest.folder}"\n'
        if proxy.name == MOUNTING:
            text += f'[datastores.{NFS}]\npath = "{self.simulator.datastores[NFS]}"\n'
            text += f'storage_snapshot = {{ provider = "{self._provider}" }}\n' if self._provider else ""
        config.write_text(head + text)

    def nbdkits(self) -> Sequence[int]:
        """The process ids of this fleet's nbdkits."""
        found = []
        for process in marked(self.layout.state):
            try:
                if process.name().startswith("nbdkit"):
                    found.append(process.pid)
            except psutil.NoSuchProcess:
                continue
        return found


@contextmanager
def vsphere_fleet(
    state: Path,
    program: Path,
    jobs: str,
    *options: str,
    provider: str | None = None,
    nfs_port: int | None = None,
) -> Iterator[tuple[VsphereFleet, Session]]:
    """A vCenter with the proxy's own VM and no others, its fleet, and a session to make VMs by."""
    with ExitStack() as stack:
        simulator = stack.enter_context(running(program, state / "vcenter", "-vms", "0", *options))
        session = stack.enter_context(Session(endpoint_of(simulator), PASSWORD))
        own, own_uuid = proxy_vm(session)
        guest = stack.enter_context(SimulatedGuest(simulator, own, state / "by-id"))
        made = VsphereFleet(state / "fleet", simulator, guest, own_uuid, jobs, provider=provider, nfs_port=nfs_port)
        if nfs_port is not None:
            simulator.find_nfs_at(nfs_port)
        fleet = stack.enter_context(made)
        stack.enter_context(explained(fleet))
        yield fleet, session


def proxy_vm(session: Session) -> tuple[str, str]:
    """The VM that the last proxy runs in, and its BIOS uuid; it has a disk, and shows uuids to its guest."""
    vm = make_vm(session, MIB, name=IN_A_VM)
    shown = vim.option.OptionValue(key="disk.EnableUUID", value="TRUE")
    machine = vim.VirtualMachine(vm.ref, session.stub)
    finish(session, "test", lambda: machine.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[shown])))
    return vm.ref, str(read(session, [machine], ["config.uuid"])[0]["config.uuid"])


def snapshots_of_ours(session: Session) -> list[str]:
    """The names of all VMs that have a snapshot of any installation of ours."""
    vms = read_inventory(session).vms.values()
    return [vm.name for vm in vms if any(Mark.of(node) is not None for node in vm.snapshots)]


def mounts_of(folder: Path) -> list[str]:
    """What is mounted on this machine from or to somewhere in a folder."""
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]
