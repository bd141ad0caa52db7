"""When each pack and index fragment was last read and found sound: the state that scheduled proofs go on from.

It lies in the repository, as `proofs/<n>`: with it any proxy, and a command without a fleet, goes on where another
stopped. The highest number counts and holds everything; those below are removed once it is durable. Losing it, or
not being able to read it, costs another reading of everything.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

import msgspec

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.collector_packs import ABSENT, SortedIds
from proxy_worker.repository.store import ObjectNotFoundError

_ID_BYTES: Final = 16
NEVER: Final = 0


class _ProofState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    ids: bytes
    """16 bytes for each pack and fragment, sorted."""
    times: bytes
    """For each of them, Unix seconds (u32, little-endian): when reading it began last; 0 for never."""
    samples: dict[str, int]
    """By `<vm>/<run>`, when a sample of that restore point was restored last."""


class Proofs:
    """The packs and fragments that there are, and when each was proven."""

    def __init__(self, units: Iterable[bytes]) -> None:
        self.ids = SortedIds(units)
        self.times = array("I", bytes(4 * len(self.ids)))
        self.samples: dict[str, int] = {}

    def take_over(self, earlier: Proofs, *, now: int) -> None:
        """Remember what an earlier state said of what is still there; times to come are not believed."""
        for number, pack_id in enumerate(earlier.ids):
            mine = self.ids.number(pack_id)
            if mine != ABSENT and earlier.times[number] <= now:
                self.times[mine] = max(self.times[mine], earlier.times[number])
        for point, sampled_at in earlier.samples.items():
            if sampled_at <= now:
                self.samples[point] = max(self.samples.get(point, NEVER), sampled_at)

    def proven_at(self, unit: bytes) -> int | None:
        """When a pack or fragment was proven, `NEVER`, or None if there is no such one."""
        number = self.ids.number(unit)
        return None if number == ABSENT else self.times[number]

    @property
    def oldest(self) -> int | None:
        """When what was proven longest ago was; None where there is nothing to prove."""
        return min(self.times, default=None)


def load_proofs(access: Access) -> Proofs:
    """The newest state that can be read; an empty one if there is none."""
    for number in sorted(_numbers(access), reverse=True):
        name = f"proofs/{number}"
        try:
            payload, _ = access.sealer.open_object(name, access.store.get(name))
            state = msgspec.msgpack.decode(payload, type=_ProofState)
        except (ObjectNotFoundError, DamageError, msgspec.MsgspecError):
            continue
        ids = [state.ids[at : at + _ID_BYTES] for at in range(0, len(state.ids), _ID_BYTES)]
        proofs = Proofs(ids)
        if len(state.times) != 4 * len(proofs.ids):
            continue
        proofs.times = array("I", state.times)
        proofs.samples = dict(state.samples)
        return proofs
    return Proofs(())


def save_proofs(access: Access, proofs: Proofs, *, now: int) -> None:
    """Publish a state, and remove those before. What somebody else has proven meanwhile is taken over."""
    while True:
        proofs.take_over(load_proofs(access), now=now)
        numbers = sorted(_numbers(access))
        name = f"proofs/{numbers[-1] + 1 if numbers else 1}"
        state = _ProofState(bytes(b"".join(proofs.ids)), proofs.times.tobytes(), proofs.samples)
        if access.store.put_if_absent(name, [access.sealer.seal_object(name, msgspec.msgpack.encode(state))]):
            break
    for number in numbers:
        access.store.delete(f"proofs/{number}")


def _numbers(access: Access) -> list[int]:
    return [int(part) for name in access.store.list("proofs/") if (part := name.partition("/")[2]).isdigit()]
