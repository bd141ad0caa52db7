"""A proxy as a member of the fleet: one Celery worker node that obeys the ledger.

Nouns: a *life* is one run of the proxy's main process, proven by a lock on its state folder; the *heart* is the
thread that registers it, says that it is alive, and subscribes to the lanes it is ordered to; a *lease keeper*
holds one task for one mover, and is the control that the mover answers to; *draining* is ending in order; a
*bench* is what a pool process keeps open between tasks: the ledger, repositories, credentials.

It must not know how a disk is moved or what a repository looks like inside; and only `app`, `tasks` and `heart`
know Celery.
"""
