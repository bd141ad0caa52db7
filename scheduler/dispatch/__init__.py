"""Which task goes where, and when: a pure policy, and the loop that applies it to the ledger.

Nouns: a pending task, the fleet (proxies, repositories, what is in flight), limits, a decision (releases, and a
reason for everything that waits), lanes. The policy knows no clock, no Redis, no SQL: the service, the tests and
simulations call the same function. The loop must not know what becomes of finished tasks.
"""
