"""The Celery app that Flower looks through: the fleet's broker and settings, without any task.

`FLEET_REDIS_URL` says where Redis is, without a password; the password is the secret file that
`FLEET_REDIS_CREDENTIAL` names in `FLEET_SECRETS_DIR` (default: `redis`; empty: Redis has no password).
With `rediss://`, `FLEET_REDIS_USERNAME`, `FLEET_REDIS_CA_FILE`, `FLEET_REDIS_CERTIFICATE` and `FLEET_REDIS_KEY` are
what `username`, `ca_file`, `certificate` and `key` are below [redis] in a proxy.toml.
"""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

from ops.flower.secret import read_secret
from proxy_worker.ledger import RedisAccess
from proxy_worker.ledger.broker import SETTINGS, broker_settings, site_options


def make_app() -> Celery:
    """An app from the environment; ends the program with a sentence when its secret can't be read."""
    url = os.environ.get("FLEET_REDIS_URL", "redis://127.0.0.1:6379/0")
    credential = os.environ.get("FLEET_REDIS_CREDENTIAL", "redis")
    password = read_secret(credential, form="password") if credential else None
    access = RedisAccess(
        url,
        os.environ.get("FLEET_REDIS_USERNAME"),
        password,
        ca_file=_path("FLEET_REDIS_CA_FILE"),
        certificate=_path("FLEET_REDIS_CERTIFICATE"),
        key=_path("FLEET_REDIS_KEY"),
    )
    flower = Celery("proxyfleet")
    flower.conf.update(SETTINGS | broker_settings(access))
    flower.conf.broker_transport_options = site_options("flower")
    return flower


def _path(variable: str) -> Path | None:
    text = os.environ.get(variable)
    return Path(text) if text else None


app = make_app()
