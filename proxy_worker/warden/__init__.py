"""The warden of a hardened repository: the one process that makes objects immutable, and lets go of them in time.

Nouns: a *term* (how long an object stays as it is), the *register* (until when, by a clock that nobody can set),
the *warden* (locks at once, lets go of what is past its term, and does nothing else), its *client* (the gateway,
which has no rights at all). It must not know keys, peers or the network, nor trust whoever asks.
"""
