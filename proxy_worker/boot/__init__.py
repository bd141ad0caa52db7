"""Boot proofs: a VM of a restore point, started in QEMU from disks that somebody serves by NBD.

A `Machine` is what the VM looks like to its guest; its `Firmware` is a BIOS or UEFI; its *console* is the first
serial port, where a login prompt is waited for; `prove_boot` starts it, watches, and ends everything. It must not
know where the disks come from: whoever asks offers them, and forgets what the guest has written.
"""
