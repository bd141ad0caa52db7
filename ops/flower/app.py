"""The Celery app that Flower looks through: the fleet's broker and settings, without any task.

`FLEET_REDIS_URL` says where Redis is, without a password; the password is the secret file that
`FLEET_REDIS_CREDENTIAL` names in `FLEET_SECRETS_DIR` (default: `redis`; empty: Redis has no password).
"""

from __future__ import annotations

import os

from celery import Celery

from ops.flower.secret import read_secret
from proxy_worker.ledger.broker import SETTINGS, broker_url


def make_app() -> Celery:
    """An app from the environment; ends the program with a sentence when its secret can't be read."""
    url = os.environ.get("FLEET_REDIS_URL", "redis://127.0.0.1:6379/0")
    credential = os.environ.get("FLEET_REDIS_CREDENTIAL", "redis")
    password = read_secret(credential, form="password") if credential else None
    flower = Celery("proxyfleet", broker=broker_url(url, password))
    flower.conf.update(SETTINGS)
    return flower


app = make_app()
