"""Restore points as disks to use in place: an NBD server that decodes what is asked for, and nothing else.

An `ExportedDisk` gives random access to a disk of a point; an `Overlay` on top of one takes writes and forgets them
in the end; the `Server` offers them by name to NBD clients. It must not know where a point came from or who asks,
and nothing here writes to a repository.
"""
