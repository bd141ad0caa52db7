"""Putting proxies on machines over SSH: checking, installing, starting, upgrading and removing them.

Nouns: a *server* (what is declared of the machine: address, login, pinned host key, what the proxy there reaches);
a *survey* (what a look at the machine found); the *wheelhouse* (this package and its locked dependencies as wheels,
for one kind of machine); a *release* (one installed version beside others, of which `current` runs);
the *layout* (where all of it lies there); the *agent* (the script that does things there, with nothing but that
machine's Python); a *step* (looked at before it is done, so that all of them can be done again).
It must not decide who gets tasks, nor be needed by `scheduler serve`: once a proxy runs, SSH is not.
"""
