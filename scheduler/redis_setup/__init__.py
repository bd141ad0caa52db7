"""What a fleet's Redis is configured with: TLS by the fleet's authority, and a user for everyone who connects.

Nouns: a *user* of Redis (the scheduler, Flower, a monitor, and one for all proxies of a site), its *rights* (the
least that its programs work with: keys, commands, channels), its *kit* (a folder with what its machine needs in
`secrets_dir`: password, certificate, key, trust file).
It must not start Redis, nor talk to one.
"""
