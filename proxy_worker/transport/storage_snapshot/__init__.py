"""Storage snapshots: a datastore's disks, frozen by the storage that they lie on.

Nouns: a *provider* makes, finds and removes snapshots on one kind of storage (a file per provider: `btrfs`,
`reflink`); a *mark* says whose a snapshot is; the *snapshots folder* is where a provider keeps them, on the same
file system as the datastore. A snapshot is as another folder of the datastore: disks are read in it in place.

Must not know: vCenter, jobs, tasks. A VM's disks are brought to rest by whoever asks for a snapshot.
"""
