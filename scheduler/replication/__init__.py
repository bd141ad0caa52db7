"""Replication: VMs that are kept ready at another site, and what is done when one takes its original's place.

Nouns: a replica (the second VM, with restore points of its own), its original, a pair (the two tasks that move
a disk: one receives, one sends), an operation (failover, undo, permanent, failback, planned failover, commit) with
its steps. Replication's runs are runs like others, of which each VM has its replica opened, its disks moved, and a
restore point of the replica made. What was begun is journalled in SQL before it is done, and done again comes to
the same: a scheduler killed anywhere goes on from there. It must not know Redis, Celery, nor proxies.
"""
