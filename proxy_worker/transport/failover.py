"""Change over to network mode when another mode fails, before a read or in the middle of one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from proxy_worker.contract.errors import ProxyfleetError, SourceError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import Extent
from proxy_worker.program.closing import Closing
from proxy_worker.transport.source import DiskSource, DiskUnreadableError, WrongDiskServedError


class FailoverFailedError(DiskUnreadableError):
    """A disk can be read neither by its first mode nor in network mode."""


class FailoverSource(Closing):
    """A `DiskSource` that goes on with another when the first fails.

    Both have the same bytes, so that a read is done again as a whole, and a listing of allocated ranges goes
    on where it was.
    """

    def __init__(self, first: DiskSource, open_next: Callable[[], DiskSource]) -> None:
        """Take over `first`; `open_next` is called once, at its first failure."""
        self.size_bytes = first.size_bytes
        self._sources = [first]
        self._open_next = open_next
        self._changing = threading.Lock()
        self._reason = first.mode_reason
        self._first_error: SourceError | None = None
        self._failed: FailoverFailedError | None = None

    @property
    def mode(self) -> TransportMode:
        """The mode that it is read by now."""
        return self._sources[-1].mode

    @property
    def mode_reason(self) -> str:
        """Why this mode; after a failover, why not the first any more."""
        return self._reason

    @property
    def parallel_reads(self) -> int:
        """How many threads that read at once make sense."""
        return self._sources[-1].parallel_reads

    def allocated(self, offset: int, length: int) -> Iterator[Extent]:
        """The ranges that may hold data. Raises SourceError."""
        end = offset + length
        while True:
            source = self._sources[-1]
            try:
                for extent in source.allocated(offset, end - offset):
                    yield extent
                    offset = extent.offset + extent.length
            except SourceError as error:
                self._change_over(source, error, offset)
            else:
                return

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from the disk's `offset` on. Raises SourceError."""
        while True:
            source = self._sources[-1]
            try:
                source.read_into(offset, view)
            except SourceError as error:
                self._change_over(source, error, offset)
            else:
                return

    def _change_over(self, failed: DiskSource, error: SourceError, offset: int) -> None:
        """Have a next source after `failed`. Raises FailoverFailedError when there is none any more."""
        with self._changing:
            if self._failed is not None:
                raise self._failed
            if failed is not self._sources[-1]:
                return  # another thread has changed over already
            if self._first_error is not None:
                raise both_failed(self._sources[0].mode, self._first_error, failed.mode, error, offset) from error
            self._first_error = error
            try:
                self._sources.append(self._open_same())
            except ProxyfleetError as second:
                mode = self._sources[0].mode
                self._failed = both_failed(mode, error, TransportMode.NETWORK, second, offset)
                raise self._failed from second
            self._reason += f"; {self.mode} from {offset} on, because {failed.mode} failed: {error}"

    def _open_same(self) -> DiskSource:
        source = self._open_next()
        if source.size_bytes == self.size_bytes:
            return source
        source.close()
        raise WrongDiskServedError(
            f"{source.mode} offers another disk", why=f"it has {source.size_bytes} bytes, not {self.size_bytes}"
        )

    def close(self) -> None:
        """Close what was opened. May be called again."""
        # The first source stays open until here: other threads may still be reading from it.
        for source in self._sources:
            source.close()


def both_failed(
    first_mode: TransportMode, first: Exception, second_mode: TransportMode, second: Exception, offset: int
) -> FailoverFailedError:
    """The error that names what went wrong in both modes."""
    return FailoverFailedError(
        f"the disk can't be read at {offset}, neither by {first_mode} nor by {second_mode}",
        offset=offset,
        why=f"{first_mode}: {first}; {second_mode}: {second}",
    )
