"""Whatever dies, freezes, fills up, is cut off or lies about the time: real processes, and what comes of it.

Nouns: a *wire* is a process' connection to Redis, through a relay; a *view* is a proxy's own sight of the
repository, in a mount namespace of its own; a *hurried* scheduler has leases of seconds.
"""
