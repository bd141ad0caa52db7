"""A whole fleet on one machine, from nothing: `make demo`.

Nouns: the story (what is shown, in order), the fleet (a server, a scheduler, three proxies, Flower: each a real
process), the VMs (disks with real filesystems of real files), the state folder `.demo/`. It uses the product only
through its two commands, as an administrator does, and must not import `scheduler` or `proxy_worker`.
"""
