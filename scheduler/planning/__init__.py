"""What a job comes to: which VMs, which disks, and when. Pure: no database, no ledger, no clock of its own.

Nouns: an inventory (the VMs that are known), a plan (VM runs with their disks, and what could not be planned,
by name), a schedule (cron in a time zone).
"""
