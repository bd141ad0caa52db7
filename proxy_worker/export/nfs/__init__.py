"""An NFS server, version 3, for hypervisors that run a VM from its restore point: files in, files out, no accounts.

A `Share` is a folder that a client mounts by a name that can't be guessed. Its files are real ones, except that
what a disk's file reads as comes from a layer on the restore point. Sources: RFC 1813 (NFS and MOUNT), RFC 5531
(RPC), RFC 4506 (XDR), RFC 1833 (the portmapper). It must not know what a repository is.
"""
