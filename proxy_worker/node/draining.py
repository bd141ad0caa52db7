"""Ending in order: one byte that the main process sets and all pool processes see."""

from __future__ import annotations

import mmap


class Draining:
    """Shared memory made before the fork: needs no broker, no signal to children, and nothing to clean up.

    While draining, disks go on and nothing new is taken; later they are handed back.
    """

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    @property
    def draining(self) -> bool:
        """Whether the proxy takes nothing new."""
        return self._byte[0] > 0

    @property
    def handing_back(self) -> bool:
        """Whether running tasks have to be handed back now, with their checkpoints."""
        return self._byte[0] > 1

    def begin(self) -> None:
        """Take nothing new."""
        self._byte[0] = max(1, self._byte[0])

    def hand_back(self) -> None:
        """Hand back what runs."""
        self._byte[0] = 2
