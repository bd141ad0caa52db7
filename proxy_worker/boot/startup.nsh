@echo -off
# Run by the UEFI shell when no disk has a boot loader at the usual place: VMs find theirs by their own NVRAM.
for %d run (0 9)
  for %l in shimx64.efi grubx64.efi systemd-bootx64.efi
    for %o in debian ubuntu redhat centos fedora rocky almalinux amzn opensuse sles sled arch systemd GRUB
      if exist fs%d:\EFI\%o\%l then
        echo starting fs%d:\EFI\%o\%l
        fs%d:\EFI\%o\%l
      endif
    endfor
  endfor
endfor
echo No boot loader was found.
