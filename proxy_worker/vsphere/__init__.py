"""What a vCenter or ESXi host is asked, and what it answers.

Nouns: an `Endpoint` says where a vCenter is and how it is trusted, a `Session` is one login that renews itself,
`Sessions` the bounded number of them; an `Inventory` is what a vCenter looked like at one moment, `VmFacts` what
jobs select VMs by; a vCenter task is awaited, a `Snapshot` is ours or a user's, changed areas are relative to an
earlier `ChangeBase`, and a hot-added disk hangs at the proxy's own VM.

Every fault that vCenter answers becomes a named error here; no pyvmomi object leaves this package except inside a
`Session`. Must not know: repositories, pipelines, transport modes, tasks of the ledger, the scheduler's database.
"""
