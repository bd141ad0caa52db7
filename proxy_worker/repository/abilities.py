"""What each key can do with an encrypted repository: the one table that the tests go through and the docs print.

It says what the repository makes of a key, not what its store allows: who may write to the folder can destroy it
with no key at all.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Holder(StrEnum):
    """Who comes with what."""

    PASSPHRASE = "passphrase"  # noqa: S105 - the word, not one of them
    READ_KEY = "read key"
    WRITE_KEY = "write key"
    REVOKED_KEY = "revoked key"
    NOTHING = "none"


class Operation(StrEnum):
    """What one can want to do."""

    LIST_POINTS = "list restore points, with names and sizes"
    BACK_UP = "add a restore point, deduplicated"
    REMOVE_POINT = "remove a restore point, collect"
    REINDEX = "rebuild the index"
    RESTORE = "read a block, restore, sample"
    CHECK_ALL = "compare every block with its id"
    REPAIR = "mend damage from other copies"
    SCRUB = "compare stored checksums"
    LIST_PASSPHRASES = "list passphrases' keys by their labels"
    LIST_HANDED_OUT = "list keys that were handed out"
    HAND_OUT = "hand out write and read keys"
    REVOKE = "revoke a key"
    PASSPHRASES = "add, change and remove passphrases"
    ROTATE = "rotate the data key pair"
    PRINT_SHEET = "print a recovery sheet"


_OWNER: Final = frozenset({Holder.PASSPHRASE})
_READERS: Final = _OWNER | {Holder.READ_KEY}
_WRITERS: Final = _READERS | {Holder.WRITE_KEY}
_ALL: Final = frozenset(Holder)

ABILITIES: Final[dict[Operation, frozenset[Holder]]] = {
    Operation.LIST_POINTS: _WRITERS,
    Operation.BACK_UP: _WRITERS,
    Operation.REMOVE_POINT: _WRITERS,
    Operation.REINDEX: _WRITERS,
    Operation.RESTORE: _READERS,
    Operation.CHECK_ALL: _READERS,
    Operation.REPAIR: _READERS,
    Operation.SCRUB: _ALL,
    Operation.LIST_PASSPHRASES: _ALL,
    Operation.LIST_HANDED_OUT: _WRITERS,
    Operation.HAND_OUT: _OWNER,
    Operation.REVOKE: _OWNER,
    Operation.PASSPHRASES: _OWNER,
    Operation.ROTATE: _OWNER,
    Operation.PRINT_SHEET: _OWNER,
}


def abilities_table() -> str:
    """The table in Markdown."""
    head = ["", *(holder.value for holder in Holder)]
    rows = [
        [operation.value, *("yes" if holder in able else "no" for holder in Holder)]
        for operation, able in ABILITIES.items()
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
