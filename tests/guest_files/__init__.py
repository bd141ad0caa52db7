"""Files out of guests: real filesystems in a real restore point, and libguestfs' appliance that reads them."""
