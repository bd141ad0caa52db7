"""Real proxies on a real Valkey: what they take, what they refuse, and what is left when they are killed."""

from __future__ import annotations

from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import InventoryScanResult
from proxy_worker.contract.specification import InventoryScan
from proxy_worker.ledger import TaskState
from tests.tasks.fleet import Fleet

SCAN = InventoryScan(datastore="ds1")


def with_datastore(fleet: Fleet) -> str:
    (fleet.folder / "ds1").mkdir(exist_ok=True)
    return f'[datastores.ds1]\npath = "{fleet.folder / "ds1"}"'


def test_task_is_claimed_done_and_reported(fleet: Fleet) -> None:
    fleet.add_proxy("proxy-1", tables=with_datastore(fleet))
    fleet.start()

    ended = fleet.run(SCAN, proxy="proxy-1")

    assert ended.state is TaskState.DONE, ended
    assert ended.result == InventoryScanResult(vms=())
    assert (ended.kind, ended.proxy, ended.attempts) == (TaskKind.INVENTORY_SCAN, "proxy-1", 1)
