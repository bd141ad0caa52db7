"""What a peer may do at a gateway: proxies add and read, and only a gateway's own certificate may do more.

The format's folders decide. What ends a restore point, condemns packs or changes who is trusted is no less a
deletion than removing them, so proxies may not add it. A proxy removes its own marks, and those of runs that have
ended, as a commit does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from proxy_worker.link.admission import Peer, Role
from proxy_worker.link.errors import LinkRefusedError

ADDED_BY_PROXIES: Final = {"index": 2, "packs": 3, "parity": 3, "points": 3, "readers": 2, "writers": 4}
"""Folders, and how many parts the names in each have."""
_REWRITTEN: Final = "keys"
_MARKS: Final = frozenset({"writers", "readers"})
_REMEMBERED_MARKS: Final = 100_000


class Rights:
    """Decides by peer and name; remembers whose marks are whose. Not thread-safe by itself; dicts' steps are."""

    def __init__(self) -> None:
        self._marks: OrderedDict[str, str] = OrderedDict()

    def require_add(self, peer: Peer, name: str, *, replace: bool) -> None:
        """Raise `LinkRefusedError` unless the peer may create, or with `replace` overwrite, this object."""
        folder = name.partition("/")[0]
        if replace and folder != _REWRITTEN:
            raise refused(peer, f"overwrite {name}", "objects are immutable, except wrapped keys")
        if peer.role is not Role.PROXY:
            return
        if replace or folder not in ADDED_BY_PROXIES:
            raise refused(peer, f"write {name}", f"proxies add to {', '.join(ADDED_BY_PROXIES)} only")
        if len(name.split("/")) != ADDED_BY_PROXIES[folder]:
            raise refused(peer, f"write {name}", "no object of a repository has such a name")

    def require_renew(self, peer: Peer, name: str) -> None:
        """Raise `LinkRefusedError` unless the peer may have this object locked for longer."""
        if not name.startswith(("packs/", "parity/")):
            raise refused(peer, f"renew the term of {name[:100]}", "only packs serve later restore points")

    def require_delete(self, peer: Peer, name: str, exists: Callable[[str], bool]) -> None:
        """Raise `LinkRefusedError` unless the peer may remove this object."""
        if peer.role is Role.GATEWAY:
            return
        folder, *rest = name.split("/")
        own = folder in _MARKS and self._marks.get(name) == peer.name
        ended = folder == "writers" and len(rest) > 1 and exists("/".join(["points", *rest[:2]]))
        if not own and not ended:
            raise refused(peer, f"delete {name}", "proxies remove their own marks only, and those of ended runs")

    def require_upkeep(self, peer: Peer, action: str) -> None:
        """Raise `LinkRefusedError` unless the peer tends the repository."""
        if peer.role is not Role.GATEWAY:
            raise refused(peer, action, "that is for certificates of role gateway")

    def added(self, peer: Peer, name: str) -> None:
        """Remember whose mark it is; of very many, the newest."""
        if name.partition("/")[0] in _MARKS:
            self._marks[name] = peer.name
            while len(self._marks) > _REMEMBERED_MARKS:
                self._marks.popitem(last=False)

    def removed(self, name: str) -> None:
        """Forget a mark that is gone."""
        self._marks.pop(name, None)


def refused(peer: Peer, action: str, why: str) -> LinkRefusedError:
    """What a peer that may not do something is told."""
    return LinkRefusedError(f"{peer.role} {peer.name} may not {action}", why=why)
