"""Disks that processes of this proxy left hot-added when they were killed: detached before others are hot-added.

A vCenter that is away keeps no proxy from starting. Until it is back, the proxy offers no virtual appliance mode,
and says why; a thread goes on trying, also for pool processes that are killed later.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.transport.attachments import FOLDER, AttachmentJournal
from proxy_worker.transport.vsphere_access import VsphereAccess

log = logging.getLogger(__name__)

AT_START_S: Final = 10.0
"""How long registering waits for disks to be detached."""
AGAIN_S: Final = 30.0
_APPLIANCE: Final = TransportMode.VIRTUAL_APPLIANCE


class Detacher:
    """A thread of the proxy's main process that detaches what dead processes have left."""

    def __init__(self, vsphere: VsphereAccess, *, again_s: float = AGAIN_S) -> None:
        self._vsphere = vsphere
        self._again_s = again_s
        self._journal = AttachmentJournal(vsphere.state_dir / FOLDER)
        self._stopping = threading.Event()
        self._looked = threading.Event()
        self._changed: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="detacher", daemon=True)
        self.reason: str | None = "disks of an earlier life of this proxy may still be attached to its VM"
        """Why the proxy mustn't hot-add now; None when nothing is left attached."""

    def start(self, *, within_s: float = AT_START_S) -> None:
        """Detach what is left; returns when it is done, has failed, or takes too long, and goes on by itself."""
        self._thread.start()
        self._looked.wait(within_s)

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called, now and from the thread, whenever `reason` has changed."""
        self._changed = changed
        changed()

    def stop(self) -> None:
        """Stop trying; what is under way is left to the journal."""
        self._stopping.set()

    def limited(self, registration: ProxyRegistration) -> ProxyRegistration:
        """What the proxy may register now: without virtual appliance mode while there is a reason against it."""
        reason, offer = self.reason, registration.vsphere
        if reason is None or _APPLIANCE not in offer.modes:
            return registration
        modes = tuple(mode for mode in offer.modes if mode is not _APPLIANCE)
        fewer = offer.model_copy(update={"modes": modes, "refusals": {**offer.refusals, _APPLIANCE: reason}})
        return registration.model_copy(update={"vsphere": fewer})

    def _run(self) -> None:
        while not self._stopping.is_set():
            before, self.reason = self.reason, self._detach()
            self._looked.set()
            if self.reason != before:
                if self.reason is not None:
                    log.warning("no disk is hot-added for now: %s", self.reason)
                self._changed()
            self._stopping.wait(self._again_s)

    def _detach(self) -> str | None:
        if self._journal.empty:
            return None
        from proxy_worker.transport.hot_add import (  # noqa: PLC0415 - slow to load, and seldom wanted
            detach_left_behind,
        )

        try:
            return "; ".join(detach_left_behind(self._vsphere)) or None
        except ProxyfleetError as error:
            return str(error)
