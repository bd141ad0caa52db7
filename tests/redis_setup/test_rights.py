"""What the users of a fleet's Redis may and may not: real proxies, and thieves with a site's password."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.transport.redis import SWEEP_BINDINGS
from redis.exceptions import NoPermissionError

from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.contract.names import proxy_lane
from proxy_worker.contract.specification import InventoryScan
from proxy_worker.ledger import FinishedTask, Ledger, LedgerPasswordError, RedisAccess, TaskState
from scheduler.redis_setup.users import users_of
from tests.redis_server import SecureRedis
from tests.tasks.fleet import Fleet, wait_until

SCAN = InventoryScan(datastore="ds1")


class SecureFleet(Fleet):
    """A fleet whose proxies come with their site's kit."""

    server: Any

    def access(self) -> RedisAccess:
        made: RedisAccess = self.server.access("scheduler")
        return made

    def redis_table(self, secrets_dir: Path) -> str:
        table: str = self.server.table(
            "site-remote" if secrets_dir.parent.name.startswith("r") else "site-primary", secrets_dir
        )
        return table


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, server: SecureRedis) -> Iterator[SecureFleet]:
    """One proxy at each of two sites, started."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "ds1/web01").mkdir(parents=True)
    server.forget_refusals()
    made = SecureFleet(folder, server)  # type: ignore[arg-type]
    for name, site in (("p1", "primary"), ("r1", "remote")):
        made.add_proxy(name, settings=[f'site = "{site}"'], tables=f'[datastores.ds1]\npath = "{folder / "ds1"}"')
    try:
        made.start()
        yield made
    finally:
        made.end()


def test_proxies_of_both_sites_work_and_nothing_they_do_is_refused(fleet: SecureFleet, server: SecureRedis) -> None:
    for name, site in (("p1", "primary"), ("r1", "remote")):
        task_id = fleet.submit(SCAN)
        fleet.dispatch(task_id, SCAN, proxy=name, lane=proxy_lane(site, name))
        assert fleet.outcome(task_id).state is TaskState.DONE
    fleet.ledger.set_proxy("p1", lanes=["disk.primary.network", "repository.main"], enabled=True)
    task_id = fleet.submit(SCAN)
    fleet.dispatch(task_id, SCAN, lane="repository.main")
    assert fleet.outcome(task_id).state is TaskState.DONE
    answers: list[dict[str, Any]] = fleet.celery.control.ping(timeout=120, limit=2)
    assert {name for answer in answers for name in answer} == {"proxy@p1", "proxy@r1"}

    assert server.refused() == []


def test_a_proxy_at_another_sites_lane_is_refused_and_its_task_comes_back(fleet: SecureFleet) -> None:
    with pytest.raises(NoPermissionError), fleet.server.client("site-remote") as thief:
        thief.brpop("proxy.primary.p1", timeout=1)


Deed = Callable[["redis.Redis"], Any]
FORBIDDEN: dict[str, Deed] = {
    "read another site's lane": lambda thief: thief.brpop("disk.primary.network", timeout=1),
    "read another proxy's lane there": lambda thief: thief.brpop("proxy.primary.p1", timeout=1),
    "put something into it": lambda thief: thief.rpush("proxy.primary.p1", "forged"),
    "take what that site has not acknowledged": lambda thief: thief.execute_command("HGET", "unacked.primary", "x"),
    "list what runs": lambda thief: thief.execute_command("SMEMBERS", "{pf}:tasks"),
    "list what has ended": lambda thief: thief.zrange("{pf}:finished", 0, -1),
    "list proxies": lambda thief: thief.execute_command("SMEMBERS", "{pf}:proxies"),
    "change orders": lambda thief: thief.hset("{pf}:orders:p1", "enabled", "0"),
    "search keys": lambda thief: thief.keys("*"),
    "scan keys": lambda thief: thief.scan(),
    "delete a task": lambda thief: thief.delete("{pf}:task:t1"),
    "run a script of one's own beyond that": lambda thief: thief.evalsha(
        thief.script_load("return redis.call('SMEMBERS', KEYS[1] .. 'tasks')"), 1, "{pf}:"
    ),
    "question or command workers": lambda thief: thief.publish("/0.celery.pidbox", "{}"),
    "listen to what others report": lambda thief: thief.execute_command("PSUBSCRIBE", "/0.celeryev/*"),
    "wipe everything": lambda thief: thief.flushall(),
    "read the configuration": lambda thief: thief.config_get("*"),
    "change it": lambda thief: thief.config_set("dir", "/elsewhere"),
    "see the users": lambda thief: thief.acl_list(),
    "see who is connected": lambda thief: thief.client_list(),
    "throw others out": lambda thief: thief.client_kill_filter(_type="normal"),
    "listen to everything": lambda thief: thief.execute_command("MONITOR"),
    "make a copy elsewhere": lambda thief: thief.replicaof("203.0.113.1", 6379),
    "load code": lambda thief: thief.execute_command("MODULE", "LOAD", "/elsewhere/x.so"),
    "stop the server": lambda thief: thief.shutdown(),
}


@pytest.mark.parametrize("deed", FORBIDDEN.values(), ids=FORBIDDEN)
def test_whoever_stole_a_sites_password_cannot(server: SecureRedis, deed: Deed) -> None:
    with server.client("site-remote") as thief, pytest.raises(redis.ResponseError) as refused:
        deed(thief)
    assert any(word in str(refused.value) for word in ("permission", "executing the script", "not allowed")), (
        refused.value
    )


@pytest.mark.parametrize(
    "deed",
    [
        lambda thief: thief.hget("{pf}:task:t1", "spec"),
        lambda thief: thief.rpush("disk.primary.network", "forged"),
        lambda thief: thief.brpop("disk.primary.network", timeout=1),
        lambda thief: thief.flushall(),
    ],
)
def test_whoever_stole_flowers_password_reads_no_task_and_publishes_none(server: SecureRedis, deed: Deed) -> None:
    with server.client("flower") as thief, pytest.raises(NoPermissionError):
        deed(thief)


@pytest.mark.parametrize("user", ["site-primary", "flower", "scheduler"])
def test_what_celery_does_once_in_a_while_is_allowed(server: SecureRedis, user: str) -> None:
    with server.client() as admin, server.client(user) as client:
        admin.zadd("_kombu.binding_deadlines", {"gone": 1})
        admin.sadd("_kombu.binding.gone", "queue")
        keys = ["_kombu.binding_deadlines"]
        sweep = client.register_script(SWEEP_BINDINGS)
        assert sweep(keys=keys, args=["_kombu.binding.", "_kombu.binding_permanent.", 10]) == 1
        holder = {"site-primary": "primary", "flower": "flower", "scheduler": "any"}[user]
        with client.lock(f"unacked_mutex.{holder}", timeout=5):
            assert admin.exists(f"unacked_mutex.{holder}")
        assert not admin.exists(f"unacked_mutex.{holder}")


def test_the_monitors_password_is_good_for_nothing_but_health(server: SecureRedis) -> None:
    with server.client("monitor") as monitor:
        assert monitor.ping()
        assert monitor.info("server")["redis_version"]
        with pytest.raises(NoPermissionError):
            monitor.get("x")


@pytest.mark.parametrize(("user", "password"), [("site-primary", "wrong"), ("nobody", "x"), (None, None)])
def test_nobody_gets_in_without_a_users_password(
    server: SecureRedis, user: str | None, password: str | None
) -> None:
    kit = server.kit("site-primary")
    access = RedisAccess(server.url, user, password, kit / "redis-ca.pem")
    with Ledger(access) as ledger, pytest.raises(LedgerPasswordError, match="refuses the password or the user"):
        ledger.view()


def test_a_right_that_is_missing_is_named_with_the_user(server: SecureRedis) -> None:
    with (
        Ledger(server.access("site-primary")) as ledger,
        pytest.raises(LedgerPasswordError, match="The user executing the script"),
    ):
        ledger.view()


def test_sites_that_redis_cannot_keep_apart_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"sites a and a\.b: their lanes begin alike"):
        users_of(["a", "a.b"])
    assert [user.name for user in users_of(["a", "ab", "a"])] == [
        "scheduler",
        "flower",
        "monitor",
        "site-a",
        "site-ab",
    ]


def test_what_was_written_survives_a_restart_and_workers_come_back(fleet: SecureFleet, server: SecureRedis) -> None:
    task_id = fleet.submit(SCAN)
    with server.client() as admin:
        admin.pipeline(transaction=True).set("written-in-a-transaction", "1").execute()
    server.stop()
    server.start()
    with server.client() as admin:
        assert admin.get("written-in-a-transaction") == "1"
    ended: list[FinishedTask] = []

    def done() -> bool:
        fleet.ledger.reap()
        waiting = fleet.ledger.view().tasks.get(task_id)
        if waiting is not None and waiting.state is TaskState.READY:  # again, if its message came too early
            fleet.dispatch(task_id, SCAN, proxy="p1", lane=proxy_lane("primary", "p1"))
        ended.extend(fleet.ledger.finished())
        return bool(ended)

    wait_until(done, "the end of the task", 60)
    assert ended[0].state is TaskState.DONE
