"""How disks are reached, against real files, qemu-nbd and nbdkit."""
