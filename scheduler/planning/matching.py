"""Whether a name, a selector or an exclusion takes a VM or a disk. Patterns are a shell's, case-sensitive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Final

from scheduler.planning.candidates import Candidate, CandidateDisk
from scheduler.planning.criteria import Criteria, DiskExclusion, VmSelector

_PATTERN_CHARACTERS: Final = frozenset("*?[")
_FOUND_IN_FOLDERS: Final = frozenset({"vm", "datastore"})
"""What VMs that no vCenter shows can be selected by."""


def is_pattern(text: str) -> bool:
    """Whether `text` may match several names, rather than being one."""
    return not _PATTERN_CHARACTERS.isdisjoint(text)


def matches(text: str, pattern: str) -> bool:
    """Whether `pattern` is this text, even if that reads like a pattern, or matches it."""
    return text == pattern or fnmatchcase(text, pattern)


def takes(selector: VmSelector, candidate: Candidate) -> bool:
    """Whether a candidate meets all conditions of a selector."""
    return (
        (selector.vcenter is None or candidate.vcenter == selector.vcenter)
        and (selector.vm is None or matches(candidate.identity.name, selector.vm))
        and (selector.folder is None or _is_in(candidate.folder, selector.folder))
        and (selector.pool is None or _is_in(candidate.pool, selector.pool))
        and (selector.cluster is None or _any([candidate.cluster or ""], selector.cluster))
        and (selector.datastore is None or _any(candidate.datastores, selector.datastore))
        and (selector.tag is None or _any(candidate.tags, selector.tag))
        and (selector.attribute is None or _has_attribute(candidate, selector.attribute))
    )


def excludes(exclusion: DiskExclusion, candidate: Candidate, disk: CandidateDisk) -> bool:
    """Whether an exclusion takes a disk of a candidate."""
    if exclusion.vm is not None and not matches(candidate.identity.name, exclusion.vm):
        return False
    if exclusion.larger_than_bytes is not None:
        return (disk.identity.size_bytes or 0) > exclusion.larger_than_bytes
    return disk.independent if exclusion.independent else disk.identity.key == exclusion.key


def needs_datastores(patterns: Iterable[str], criteria: Criteria, declared: Iterable[str]) -> bool:
    """Whether datastores that are folders have to be scanned: whether anything may be found there.

    Not when every VM is named in full and is one of the `declared`, which bring their disks with them.
    """
    known = set(declared)
    return any(is_pattern(pattern) or pattern not in known for pattern in patterns) or any(
        selector.vcenter is None and _keys(selector) <= _FOUND_IN_FOLDERS for selector in criteria.select
    )


def needed_vcenters(
    patterns: Iterable[str], criteria: Criteria, declared: Iterable[str], vcenters: Iterable[str]
) -> tuple[str, ...]:
    """Which of the `vcenters` have to be read: all, unless every selector names its own."""
    known = set(declared)
    everywhere = any(is_pattern(pattern) or pattern not in known for pattern in patterns)
    everywhere = everywhere or any(selector.vcenter is None for selector in criteria.select)
    named = {selector.vcenter for selector in criteria.select}
    return tuple(vcenter for vcenter in vcenters if everywhere or vcenter in named)


def _keys(selector: VmSelector) -> set[str]:
    return set(selector.model_dump(exclude_none=True))


def _is_in(path: str | None, pattern: str) -> bool:
    return path is not None and _any(_above(path), pattern.strip("/"))


def _above(path: str) -> Iterator[str]:
    """The path and those of all that contain it."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _any(texts: Iterable[str], pattern: str) -> bool:
    return any(text and matches(text, pattern) for text in texts)


def _has_attribute(candidate: Candidate, wanted: str) -> bool:
    name, separator, value = wanted.partition("=")
    return any(
        matches(key, name) and (matches(text, value) if separator else bool(text))
        for key, text in candidate.attributes.items()
    )
