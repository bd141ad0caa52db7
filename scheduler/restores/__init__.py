"""Restores to a vCenter: VMs made anew, or run from their points; written over; disks added. State machines in SQL.

Nouns: a restore (a `VmRestore` with its disks), steps at the vCenter (place, ready, attach, finish, undo), tasks of
proxies (make the VM, write a disk), the flow (which of them follows which). A VM that is made carries the restore's
mark until it is whole: what fails or is cancelled is deleted by that mark, and nothing without it ever is.
It must not know Redis, Celery, nor proxies; the journal of `scheduler.runs` tells the ledger.
"""
