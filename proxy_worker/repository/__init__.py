"""The repository: where restore points live, format version 1 (`docs/repository-format.md`).

Nouns: a *block* is a piece of a disk and has an *id*; blocks are sealed into *chunks*, chunks lie in *packs*, and
*index fragments* say in which. A *segment* lists the ids of one stretch of a disk, a *disk map* lists a disk's
segments, a *restore point* names the maps of one VM at one moment and is the only commit. A *writer* is one attempt
at one disk. A *store* keeps named immutable objects and knows nothing of any of this.

It must not know where disks come from or go to, what a job or a lease is, or that Redis exists.
"""
