"""Making packs durable and publishing their fragments, off the writer thread.

Packs are synced one after the other in the order they were closed; a fragment is published for every few of
them, or sooner when somebody waits. A mark, which grows with everything stored, says how far that has come.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.errors import ProxyfleetError, StoreError
from proxy_worker.repository.fragments import FragmentPack, encode_fragment, fragment_name
from proxy_worker.repository.index_run import FRAGMENT_ID_BYTES
from proxy_worker.repository.pack_layout import pack_name
from proxy_worker.repository.packs import ClosedPack
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import Interruptible, Store

_LOOK_AGAIN_S: Final = 1.0
_QUEUED_PACKS: Final = 4
"""The writer thread waits when the store is this far behind: written data must not pile up unsynced."""
_ROOM: Final = 2
"""For what ends a delivery, so that asking for it doesn't wait, too."""


@dataclass(frozen=True, slots=True)
class _Delivery:
    pack: ClosedPack | None
    mark: int
    publish: bool


class PackDelivery:
    """One background thread. `submit` and `publish` from one thread; marks from any."""

    def __init__(
        self,
        store: Store,
        sealer: MetadataSealer,
        *,
        group: str,
        packs_per_fragment: int,
        published: Callable[[list[ClosedPack], int], None],
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._group = group
        self._packs_per_fragment = packs_per_fragment
        self._published = published
        self._queue: queue.Queue[_Delivery | None] = queue.Queue(_QUEUED_PACKS + _ROOM)
        self._changed = threading.Condition()
        self._durable_mark = 0
        self._unsynced = 0
        self._error: ProxyfleetError | None = None
        self._aborted = False
        self._under_way: ClosedPack | None = None
        self._thread = threading.Thread(target=self._run, name="pack-delivery", daemon=True)
        self._thread.start()

    @property
    def durable_mark(self) -> int:
        """Everything stored up to this mark is durable and published."""
        return self._durable_mark

    @property
    def is_behind(self) -> bool:
        """Whether nothing more should be submitted now. Not after an error, which is for `submit` to raise."""
        return self._queue.qsize() >= _QUEUED_PACKS and self._error is None

    @property
    def waiting(self) -> int:
        """Packs that aren't durable yet."""
        return self._unsynced

    def caught_up(self, timeout_s: float) -> bool:
        """Wait until all packs submitted so far are durable, or an error has stopped that; False on timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._unsynced or self._error is not None, timeout_s)

    def submit(self, pack: ClosedPack, mark: int) -> None:
        """Take over a closed pack that holds everything up to `mark`; waits while too many are under way."""
        self.raise_error()
        pack.object.end()
        with self._changed:
            self._unsynced += 1
        self._put(_Delivery(pack, mark, publish=False))

    def publish(self) -> None:
        """Publish what has been submitted so far without waiting for more."""
        self.raise_error()
        self._put(_Delivery(None, 0, publish=True))

    def wait(self, mark: int, timeout_s: float | None) -> bool:
        """Wait until `mark` is durable; False on timeout. Raises what stopped the delivery."""
        with self._changed:
            self._changed.wait_for(lambda: self._durable_mark >= mark or self._error is not None, timeout_s)
        self.raise_error()
        return self._durable_mark >= mark

    def outlast(self, mark: int, go_on: Callable[[], None]) -> None:
        """Wait until `mark` is durable; `go_on` is called each second meanwhile, and may end that by raising."""
        while not self.wait(mark, _LOOK_AGAIN_S):
            go_on()

    def raise_error(self) -> None:
        """Raise what stopped the delivery, if anything did."""
        if self._error:
            raise self._error

    def stop(self, *, abort: bool) -> None:
        """End the thread, after what is queued or, with `abort`, dropping it. Idempotent."""
        self._aborted = self._aborted or abort
        under_way = self._under_way
        if abort and under_way and isinstance(under_way.object, Interruptible):
            under_way.object.give_up()
        self._put(None)
        self._thread.join()

    def _put(self, delivery: _Delivery | None) -> None:
        while self._thread.is_alive():
            try:
                self._queue.put(delivery, timeout=_LOOK_AGAIN_S)
            except queue.Full:
                continue
            return

    def _run(self) -> None:
        try:
            self._deliver()
        except BaseException:
            # A defect, not a foreseeable error: whoever waits must not wait for ever.
            with self._changed:
                self._error = StoreError(
                    f"can't write to {self._store.location}", why="the delivery of packs broke"
                )
                self._changed.notify_all()
            raise

    def _deliver(self) -> None:
        pending: list[ClosedPack] = []
        mark = 0
        while (delivery := self._queue.get()) is not None:
            try:
                if self._aborted or self._error:
                    if delivery.pack:
                        delivery.pack.object.discard()
                    continue
                if delivery.pack:
                    self._make_durable(delivery.pack)
                    with self._changed:
                        self._unsynced -= 1
                        self._changed.notify_all()
                    pending.append(delivery.pack)
                    mark = delivery.mark
                if pending and (delivery.publish or len(pending) >= self._packs_per_fragment):
                    self._publish(pending, mark)
                    pending = []
            except ProxyfleetError as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                if delivery.pack:
                    delivery.pack.object.discard()

    def _make_durable(self, pack: ClosedPack) -> None:
        self._under_way = pack
        if self._aborted and isinstance(pack.object, Interruptible):
            pack.object.give_up()
        if not pack.object.finish():
            name = pack_name(pack.pack_id)
            raise StoreError(
                f"can't write {name} in {self._store.location}", why="a pack of this name exists already"
            )

    def _publish(self, packs: list[ClosedPack], mark: int) -> None:
        name = fragment_name(secrets.token_bytes(FRAGMENT_ID_BYTES))
        described = [
            (FragmentPack(pack.pack_id, pack.size_bytes, self._group, pack.data_keys), pack.chunks)
            for pack in packs
        ]
        data = encode_fragment(self._sealer, name, described)
        self._store.put_if_absent(name, [data])
        self._published(packs, len(data))
        with self._changed:
            self._durable_mark = mark
            self._changed.notify_all()
