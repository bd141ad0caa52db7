"""What the scheduler, the proxies and Flower must agree on to meet at the broker.

The values are measured ones; each guards against a way in which Celery on Redis loses, repeats or hoards tasks.
"""

from __future__ import annotations

from typing import Any, Final

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.transport.redis import Channel
from redis.exceptions import RedisError

from proxy_worker.contract.names import TaskKind
from proxy_worker.ledger.access import FleetConnection, RedisAccess, reached
from proxy_worker.ledger.connection import KEEPALIVE
from proxy_worker.ledger.errors import LedgerUnavailableError

TRANSPORT_OPTIONS: Final[dict[str, Any]] = {
    "visibility_timeout": 86400,
    "queue_order_strategy": "priority",
    **KEEPALIVE,
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "health_check_interval": 10,
}

SETTINGS: Final[dict[str, Any]] = {
    "accept_content": ["json"],
    "task_serializer": "json",
    "event_serializer": "json",
    "task_ignore_result": True,
    "task_send_sent_event": True,
    "task_create_missing_queues": False,
    "task_default_queue": "unused",
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_transport_options": TRANSPORT_OPTIONS,
    "enable_utc": True,
    "timezone": "UTC",
}


def broker_settings(access: RedisAccess) -> dict[str, Any]:
    """Where the broker is and how it is reached. Holds the password: for an app's configuration only."""
    settings: dict[str, Any] = {"broker_url": access.broker_url()}
    if access.tls:
        # Kombu has no setting for it, and every connection of this process goes to the fleet's own Redis.
        Channel.connection_class_ssl = FleetConnection
        settings["broker_use_ssl"] = access.certificates
    return settings


def site_options(site: str) -> dict[str, Any]:
    """The transport's options of who consumes: what a site took and hasn't acknowledged yet is the site's own."""
    keys = {key: f"{key.removesuffix('_key')}.{site}" for key in ("unacked_key", "unacked_index_key")}
    return TRANSPORT_OPTIONS | keys | {"unacked_mutex_key": f"unacked_mutex.{site}"}


def lane_queue(lane: str) -> Queue:
    """A lane as a queue: the anonymous exchange delivers by name, with no binding to look up or to lose."""
    return Queue(lane, Exchange(""), routing_key=lane, durable=True)


def publisher(url: str | RedisAccess, password: str | None = None) -> Celery:
    """An app that can only publish: the scheduler's."""
    app = Celery("proxyfleet", set_as_current=False)
    app.conf.update(SETTINGS | broker_settings(reached(url, password)))
    # The dispatch deadline is the only repeat: a loop that waits for the broker decides nothing meanwhile.
    app.conf.broker_transport_options = TRANSPORT_OPTIONS | {"max_retries": 0}
    return app


def publish(app: Celery, *, kind: TaskKind, title: str, lane: str, task_id: str, number: int) -> None:
    """Announce a dispatched task on its lane; Flower shows it under `title`.

    Raises `LedgerUnavailableError`; nothing has to be undone, since the dispatch deadline makes the task ready
    again.
    """
    try:
        app.send_task(
            str(kind),
            args=(task_id, number),
            task_id=f"{task_id}.{number}",
            queue=lane_queue(lane),
            shadow=title,
            retry=False,
        )
    except (OperationalError, RedisError, OSError) as error:
        raise LedgerUnavailableError(
            f"lane {lane}", why=f"task {title!r} could not be published ({error})"
        ) from error
