"""What holds at any vCenter: the simulated one in the suite, a real one with `VCENTER_URL=… make test-vsphere`.

Tests read only, except those marked `touches_vm`: they make and remove snapshots of the VM that VCENTER_TEST_VM
names, and switch its changed block tracking on.
"""
