"""The data plane: a proxy reads one disk at a time and delivers it to a repository, or writes one back.

A proxy never imports the scheduler. What the two say to each other is in `contract`, what runs now is
in `ledger`. Everything else works with nothing but a disk, a repository and a key.
"""
