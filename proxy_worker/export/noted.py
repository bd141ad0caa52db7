"""A disk that remembers why it couldn't be read: NBD clients hear of an input/output error only."""

from __future__ import annotations

from collections.abc import Iterator

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.export.disk import Disk, Extent


class NotedDisk:
    """A disk with the last error of reading it. Implements `Disk`."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.size_bytes, self.block_size = disk.size_bytes, disk.block_size
        self.error: ProxyfleetError | None = None

    def read_into(self, offset: int, view: memoryview) -> None:
        """As the disk does."""
        try:
            self._disk.read_into(offset, view)
        except ProxyfleetError as error:
            self.error = error
            raise

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """As the disk does."""
        return self._disk.extents(offset, length)
