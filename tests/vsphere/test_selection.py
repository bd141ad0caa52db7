"""What jobs select by: places, attributes, and tags from vCenter's other interface."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from proxy_worker.vsphere import tags
from proxy_worker.vsphere.faults import VcenterUnreachableError
from proxy_worker.vsphere.inventory import read_inventory
from proxy_worker.vsphere.selection import facts
from proxy_worker.vsphere.session import Endpoint, Session, VcenterPasswordError
from proxy_worker.vsphere.tags import Tag, VcenterTagsError, read_tags
from proxy_worker.vsphere.tasks import finish
from tests.simulators.vsphere.simulator import PASSWORD, VsphereSimulator, running
from tests.vsphere.conftest import endpoint_of
from tests.vsphere.machines import MIB, make_vm


class Tagging:
    """An administrator with vCenter's REST interface."""

    def __init__(self, server: VsphereSimulator) -> None:
        context = ssl._create_unverified_context()  # noqa: S323  # the tests' own server
        self.connection = http.client.HTTPSConnection(server.host, server.port, context=context)
        self.headers = {"Authorization": "Basic YTpi", "Content-Type": "application/json"}
        self.headers["vmware-api-session-id"] = self.post("/cis/session", None)

    def post(self, path: str, body: Any) -> Any:
        self.connection.request("POST", f"/rest/com/vmware{path}", json.dumps(body), self.headers)
        return json.loads(self.connection.getresponse().read() or "{}").get("value")

    def tag(self, category: str, name: str, *refs: str) -> None:
        """A new tag in a new category, on these VMs."""
        made = self.post("/cis/tagging/category", {"create_spec": {"name": category, "cardinality": "MULTIPLE"}})
        tag = self.post("/cis/tagging/tag", {"create_spec": {"name": name, "category_id": made}})
        for ref in refs:
            target = {"object_id": {"type": "VirtualMachine", "id": ref}}
            self.post(f"/cis/tagging/tag-association/id:{tag}?~action=attach", target)


def test_tags_are_read_in_calls_per_tag_not_per_vm(
    vsphere: VsphereSimulator, session: Session, endpoint: Endpoint
) -> None:
    vms = [make_vm(session, MIB) for _ in range(5)]
    admin = Tagging(vsphere)
    admin.tag("backup", "gold", *(vm.ref for vm in vms))
    admin.tag("owner", "sales & more", vms[0].ref)
    vsphere.reset()
    found_tags = read_tags(endpoint, PASSWORD)
    assert vsphere.calls() == {"REST": 9}  # session 2, lists 2, categories 2, tags 2, associations 1
    assert found_tags[vms[0].ref] == (Tag("backup", "gold"), Tag("owner", "sales & more"))
    assert [str(tag) for tag in found_tags[vms[4].ref]] == ["backup:gold"]
    found = {fact.vm.ref: fact.tags for fact in facts(read_inventory(session), found_tags)}
    assert found[vms[1].ref] == (Tag("backup", "gold"),)


def test_an_esxi_host_has_no_tags(vsphere_program: Path, tmp_path: Path) -> None:
    with running(vsphere_program, tmp_path, "-esx") as server:
        assert read_tags(endpoint_of(server), PASSWORD) == {}


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((401, b""), VcenterPasswordError, "user name or password is refused"),
        ((503, b""), VcenterTagsError, "HTTP 503"),
        ((200, b"<html>"), VcenterTagsError, "isn't vCenter's"),
        ((200, b"[]"), VcenterTagsError, "isn't vCenter's"),
        ((200, b'{"value": ["urn:1"]}'), VcenterTagsError, "without name"),
    ],
)
def test_an_answer_that_is_none_is_a_named_error(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, answer: object, error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(tags, "_exchange", lambda *_: answer)
    with pytest.raises(error, match=message):
        read_tags(endpoint, PASSWORD)


def test_tags_of_a_vcenter_that_is_gone_are_a_named_error(vsphere: VsphereSimulator) -> None:
    with pytest.raises(VcenterUnreachableError, match="reading the tags of vCenter vc1"):
        read_tags(endpoint_of(vsphere, port=1), PASSWORD)


def test_facts_say_where_a_vm_is(session: Session) -> None:
    center = session.content.rootFolder.childEntity[0]
    outer = center.vmFolder.CreateFolder("Linux")
    inner = outer.CreateFolder("web/front")
    pool = next(found for found in center.hostFolder.childEntity if len(found.host) > 1).resourcePool
    spec = vim.ResourceConfigSpec(
        cpuAllocation=vim.ResourceAllocationInfo(
            reservation=0, limit=-1, expandableReservation=True, shares=vim.SharesInfo(level="normal", shares=1)
        ),
        memoryAllocation=vim.ResourceAllocationInfo(
            reservation=0, limit=-1, expandableReservation=True, shares=vim.SharesInfo(level="normal", shares=1)
        ),
    )
    small = pool.CreateResourcePool("small", spec)
    vm = make_vm(session, MIB, datastore="LocalDS_1")
    machine = vim.VirtualMachine(vm.ref, session.stub)
    finish(session, "moving", lambda: inner.MoveIntoFolder_Task([machine]))
    moved = vim.vm.RelocateSpec(pool=small)
    finish(session, "moving", lambda: machine.RelocateVM_Task(moved))

    fact = next(found for found in facts(read_inventory(session), {}) if found.vm.ref == vm.ref)
    assert fact.datacenter == "DC0"
    assert fact.folder == "DC0/Linux/web/front"
    assert (fact.cluster, fact.pool) == ("DC0_C0", "small")
    assert fact.datastores == ("LocalDS_1",)
    assert (fact.host or "").startswith("DC0_C0_H")


def test_a_vm_on_a_host_of_its_own_has_that_host_as_cluster(session: Session) -> None:
    found = {fact.vm.name: fact for fact in facts(read_inventory(session), {})}
    alone = found["DC0_H0_VM0"]
    assert (alone.cluster, alone.pool, alone.folder) == ("DC0_H0", "", "DC0")
