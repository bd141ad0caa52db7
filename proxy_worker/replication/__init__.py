"""Disks sent from one proxy to another, and the replicas that they make.

Nouns: a *block* (256 KiB of a disk, named by a keyed digest), the *table* (the digest of each block of a replica's
disk, kept by the target's proxy), a *reception* (a replica's disk while one session writes it), the *far end* (what
the source talks to: a reception in this process, or a link to one), a *folder* (a replica's files, its condition,
and its restore points), a *point* (all files of a replica as they were after a run).
It must not know jobs, the order of runs or retention, nor Redis: those are the scheduler's and the node's.
"""
