"""What a job comes to: which VMs, which disks, and when. Pure: no database, no ledger, no clock of its own.

Nouns: criteria (what a job selects and excludes by, besides names), a candidate (a VM that jobs can choose from),
an inventory (VMs as a vCenter showed them), a plan (VM runs with their disks, and what could not be planned, by
name), a schedule (cron in a time zone).
"""
