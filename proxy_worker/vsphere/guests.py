"""What a VMX calls a guest, as vSphere's interface calls it: `windows9srv-64` is `windows9Server64Guest`."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from pyVmomi import vim

OTHER: Final = "otherGuest64"


@cache
def _identifiers() -> dict[str, str]:
    known = [str(one) for one in vim.vm.GuestOsDescriptor.GuestOsIdentifier.values]
    return {_plain(one): one for one in known}


def guest_id(name: str) -> str | None:
    """The identifier for a VMX's `guestOS`, or for one that is an identifier already; None if it is unknown."""
    return _identifiers().get(_plain(name))


def _plain(name: str) -> str:
    text = re.sub(r"[^a-z0-9]", "", name.lower()).removesuffix("guest").replace("server", "srv")
    return re.sub(r"guest(64)$", r"\1", text)
