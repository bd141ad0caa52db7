"""Files and folders out of the filesystems inside a VM's disks, without root and without mounting anything here.

An `Appliance` is libguestfs' small VM, which reads the disks by the drivers of a Linux kernel, so that a damaged or
hostile filesystem harms nobody else; a `Guest` is what it finds: `Volume`s (partitions, logical volumes, whole
disks) and the `Entry`s in them; `restore` lands them in a folder of this machine. It must not know what a restore
point is: disks come as NBD URIs. What the appliance writes, such as a journal that it replays, stays in an overlay
of its own and is forgotten.
"""
