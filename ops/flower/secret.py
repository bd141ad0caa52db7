"""Secrets from files, one each, as Docker, systemd and Kubernetes mount them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER = "FLEET_SECRETS_DIR"


def read_secret(name: str, *, form: str) -> str:
    """The one line of the secret file `name`; ends the program with a sentence when there is none."""
    path = Path(os.environ.get(FOLDER, "/etc/proxyfleet/secrets")) / name
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        sys.exit(f"secret file {path}: {error.strerror}. Put one line {form} there, or set {FOLDER}.")
    if not secret:
        sys.exit(f"secret file {path}: it is empty. Put one line {form} there.")
    return secret
