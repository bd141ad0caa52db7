"""How a proxy reaches a VM's disk.

Nouns: a `DiskSource` is an open disk that can be read; a transport mode is a way to get one (a file per way:
`direct`, `qemu`, `network`); `Connections` are what this proxy can reach; `select` chooses between modes;
`FailoverSource` changes over when one fails. A VMX and a VMDK are what VMs and disks look like in a datastore,
and an inventory is a datastore's VMs.

Must not know: repositories, pipelines, tasks, the ledger, Redis. It only ever reads.
"""
