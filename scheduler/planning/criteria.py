"""What a job says of its VMs and disks beyond names: as a fleet file has it and the database keeps it."""

from __future__ import annotations

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from proxy_worker.contract.subjects import Name

INDEPENDENT: Final = "independent"
_KIB: Final = 1024
_UNITS: Final = {"MiB": _KIB**2, "GiB": _KIB**3, "TiB": _KIB**4}
_SIZE: Final = re.compile(rf"> ?(?P<number>\d+(?:\.\d+)?) ?(?P<unit>{'|'.join(_UNITS)})")
_PLACE: Final = re.compile(r"(?:scsi|sata|nvme|ide)\d+:\d+")

Pattern = Annotated[str, Field(min_length=1)]
"""A name, or a shell pattern of names: `*`, `?` and `[…]` match as in a shell."""


def _with_category(tag: str) -> str:
    category, _, name = tag.partition("/")
    if not (category and name):
        raise ValueError(f"expected a tag with its category, such as 'Backup/gold', got {tag!r}")
    return tag


class VmSelector(BaseModel):
    """VMs that meet all of these conditions. Every value but `vcenter` may be a pattern, as in a shell."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    vm: Pattern | None = None
    """The VM's name."""
    folder: Pattern | None = None
    """The VM folder that it is in or below, from the datacentre on: `DC0/Linux`."""
    pool: Pattern | None = None
    """The resource pool or vApp that it is in or below, from the cluster on: `Production/Web`."""
    cluster: Pattern | None = None
    """The cluster, or the host that is in none."""
    datastore: Pattern | None = None
    """A datastore that some of it lies on: as vCenter calls it, or as it is declared."""
    attribute: Pattern | None = None
    """A custom attribute with its value, `Owner=ops`; without a value, any that isn't empty."""
    tag: Annotated[str, AfterValidator(_with_category)] | None = None
    """A tag with its category: `Backup/gold`."""
    vcenter: Name | None = None
    """Only VMs of this vCenter; alone, all of them."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            keys = ", ".join(type(self).model_fields)
            raise ValueError(f"expected at least one condition, got none: {keys}")
        return self

    def __str__(self) -> str:
        said = (f"{key} {value!r}" for key, value in self.model_dump(exclude_none=True).items())
        return " and ".join(said)


class DiskExclusion(BaseModel):
    """Disks that a job leaves out: by key, those that are independent, or those larger than a size."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    vm: str | None = None
    """Only of VMs with this name or pattern."""
    key: str | None = None
    independent: bool = False
    larger_than_bytes: int | None = None

    @classmethod
    def parse(cls, text: str) -> DiskExclusion:
        """Read `scsi0:1`, `independent` or `>500GiB`, each perhaps after a VM and a slash; or raise ValueError."""
        vm, slash, which = text.rpartition("/")
        if slash and not vm:
            raise _not_an_exclusion(text)
        of = vm or None
        if which == INDEPENDENT:
            return cls(vm=of, independent=True)
        if size := _SIZE.fullmatch(which):
            return cls(vm=of, larger_than_bytes=round(float(size["number"]) * _UNITS[size["unit"]]))
        if _PLACE.fullmatch(which):
            return cls(vm=of, key=which)
        raise _not_an_exclusion(text)


def _not_an_exclusion(text: str) -> ValueError:
    return ValueError(
        f"expected a disk's key such as 'scsi0:1', 'independent', or a size such as '>500GiB', "
        f"each perhaps for some VMs only, as in 'db*/scsi0:1', got {text!r}"
    )


def _valid_exclusion(text: str) -> str:
    DiskExclusion.parse(text)
    return text


DiskExclusionText = Annotated[str, AfterValidator(_valid_exclusion)]
"""What `DiskExclusion.parse` reads."""


class Criteria(BaseModel):
    """What a job says besides names of which VMs and disks it is about."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    select: tuple[VmSelector, ...] = ()
    """VMs that any of these takes belong to the job, besides those that are named."""
    exclude: tuple[VmSelector, ...] = ()
    """VMs that any of these takes don't, whatever names or selects them."""
    exclude_disks: tuple[DiskExclusionText, ...] = ()
    templates: bool = False
    """Whether templates belong to it too."""
