"""Whether the certificate that a vCenter shows is verified, or is to be pinned: people decide, or options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import typer

from proxy_worker.contract.errors import CredentialError
from proxy_worker.vsphere.faults import UNREACHABLE, translate
from proxy_worker.vsphere.trust import Trust, shown_thumbprint, verify
from scheduler.cli.printing import note

_TIMEOUT_S: Final = 20.0


def thumbprint_to_pin(
    name: str,
    host: str,
    port: int,
    *,
    thumbprint: str | None,
    ca_file: Path | None,
    accept: bool,
    pinned: str | None = None,
) -> str | None:
    """The thumbprint that a vCenter is to be pinned by; None if its certificate is verified.

    A given one is compared with what is shown. One that can't be verified, or isn't the one that was `pinned`, is
    shown and asked about where somebody can answer, or taken as it is with `accept`. Raises the errors of `trust`,
    and `VcenterUnreachableError`.
    """
    try:
        verify(name, host, port, Trust(thumbprint or pinned, ca_file), _TIMEOUT_S)
    except CredentialError as error:
        if thumbprint is not None:
            raise
        return _accepted(shown_thumbprint(host, port, _TIMEOUT_S), error, accept=accept)
    except UNREACHABLE as error:
        raise translate(f"vCenter {name} ({host}:{port})", error) from error
    return thumbprint or pinned


def _accepted(shown: str, error: CredentialError, *, accept: bool) -> str:
    """The thumbprint, if somebody takes the certificate for the right one; raises `error` with it otherwise."""
    if accept:
        note(f"{error.what}: {error.why}. Pinned its SHA-256 thumbprint {shown}.")
        return shown
    if sys.stdin.isatty():
        note(f"{error.what}: {error.why}.\nIts SHA-256 thumbprint is {shown}")
        if typer.confirm("Is that the one that the vCenter itself shows? Pin it", err=True):
            return shown
    raise type(error)(
        error.what,
        why=f"{error.why}; its SHA-256 thumbprint is {shown}",
        remedy="Compare that with what the vCenter itself shows and give it with --thumbprint, or name the "
        "certificate's authority with --ca-file. --accept-thumbprint pins what is shown, uncompared.",
    )
