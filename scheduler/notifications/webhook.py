"""Telling a server: the report as JSON in an HTTP POST, signed if there is a key for it.

The signature is HMAC-SHA256 in hexadecimal over the time in `X-Proxyfleet-Timestamp` (Unix seconds), a full stop
and the body, as in `docs/monitoring.md`: a copy of a request that is sent again later can be told by its time.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.metadata
import json
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError

from proxy_worker.program.settings import SecretError, read_secret
from scheduler.notifications.letter import DeliveryError, Letter
from scheduler.planning.addressees import WebhookTarget

TIMEOUT_S: Final = 10.0
"""To connect, and again for the answer's head; its body is not read."""
_ACCEPTED: Final = range(200, 300)


class WebhookError(DeliveryError):
    """A webhook's server can't be reached, or doesn't accept what it is told."""


def post(target: WebhookTarget, letter: Letter, secrets_dir: Path) -> None:
    """Tell the server, once. Raises `WebhookError`, or `SecretError`."""
    url = _url(target, secrets_dir)
    body = document(letter)
    where = f"webhook of notification {letter.notification} at {urlsplit(url).netloc.rpartition('@')[2]}"
    try:
        with urllib3.PoolManager(ca_certs=target.ca_file) as pool:
            answer = pool.request(
                "POST",
                url,
                body=body,
                headers=_headers(target, letter, body, secrets_dir),
                timeout=TIMEOUT_S,
                redirect=False,
                retries=False,
                preload_content=False,
            )
            answer.close()
    except (HTTPError, LocationValueError, OSError) as error:
        raise WebhookError(
            where, why=_without_address(error), remedy="Check the address and the server."
        ) from error
    if answer.status not in _ACCEPTED:
        raise WebhookError(
            where, why=f"it answered {answer.status} {answer.reason or ''}".strip(), remedy="Look into its log."
        )


def document(letter: Letter) -> bytes:
    """The body: what happened, and the run's report."""
    told = {
        "event": letter.event,
        "delivery": letter.delivery,
        "notification": letter.notification,
        "subject": letter.subject,
        "report": letter.report.model_dump(mode="json"),
    }
    return json.dumps(told, ensure_ascii=False).encode()


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What `X-Proxyfleet-Signature` holds: `sha256=` and the digest."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"sha256={digest}"


def _headers(target: WebhookTarget, letter: Letter, body: bytes, secrets_dir: Path) -> dict[str, str]:
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"proxyfleet/{importlib.metadata.version('proxyfleet')}",
        "X-Proxyfleet-Event": letter.event,
        "X-Proxyfleet-Delivery": letter.delivery,
        "X-Proxyfleet-Timestamp": timestamp,
    }
    if target.signing_credential is not None:
        secret = read_secret(secrets_dir / f"{target.signing_credential}.secret", "signing secret of webhooks")
        headers["X-Proxyfleet-Signature"] = signature(secret, timestamp, body)
    return headers


def _url(target: WebhookTarget, secrets_dir: Path) -> str:
    if target.url is not None:
        return target.url
    path = secrets_dir / f"{target.url_credential}.url"
    url = read_secret(path, "address of a webhook")
    if not url.startswith(("http://", "https://")):
        raise SecretError(f"address of a webhook in {path}", why="it doesn't begin with http:// or https://")
    return url


def _without_address(error: Exception) -> str:
    """What went wrong in words that hold no path of the address, which may be a secret."""
    cause = error.__cause__ or error.__context__ or error
    return f"{type(cause).__name__}: {cause}" if isinstance(cause, OSError) else type(error).__name__
