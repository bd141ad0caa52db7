"""VMs of a vCenter through a whole fleet on one machine, from nothing: `make demo-vsphere`.

The vCenter and VMware's VDDK are simulated (tests/simulators/vsphere); everything else is real. It shares its frame
with `ops.demo`, uses the product only through its two commands, and must not import `scheduler` or `proxy_worker`.
"""
