"""How many requests work took of an object store: their owners bill by the request, by kind."""

from __future__ import annotations

from proxy_worker.contract.subjects import Frozen


class StoreRequests(Frozen):
    """Requests that were sent, by kind; what the store's client repeated by itself counts once."""

    puts: int = 0
    """Objects, and each part of large ones, with its beginning and its end."""
    gets: int = 0
    heads: int = 0
    lists: int = 0
    """Pages of listings."""
    deletes: int = 0

    def since(self, earlier: StoreRequests) -> StoreRequests:
        """Those that weren't among `earlier` ones."""
        before = earlier.model_dump()
        return StoreRequests(**{kind: count - before[kind] for kind, count in self.model_dump().items()})

    def __add__(self, other: StoreRequests) -> StoreRequests:
        """Both together."""
        more = other.model_dump()
        return StoreRequests(**{kind: count + more[kind] for kind, count in self.model_dump().items()})

    def __str__(self) -> str:
        """`12 PUT, 3 GET`."""
        asked = (f"{count} {kind[:-1].upper()}" for kind, count in self.model_dump().items() if count)
        return ", ".join(asked) or "none"
