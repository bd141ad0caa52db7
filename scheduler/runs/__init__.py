"""What becomes of runs, restores and requests: the state machine, in SQL.

Nouns: the journal (one transaction in which tasks are opened, cancelled and closed), steps (each brings rows from
one state to the next within a journal), outcomes (what finished tasks mean), the catalogue (restore points).
The ledger is only told what a committed journal says, and an outcome is acknowledged only once it is recorded:
a scheduler killed anywhere repeats the telling, not the step. It must not know Redis, Celery, nor proxies.
"""
