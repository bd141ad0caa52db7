"""Telling people and programs how runs ended.

Nouns: a notification (declared: whom to tell of which runs), a delivery (one run's end for one of them, kept in
the database's outbox until it is delivered or given up), a letter (what is told), `webhook` and `email` (how it
gets there), the postman (the thread of `scheduler serve` that empties the outbox). It must not decide anything
about runs, and nothing about runs may wait for it.
"""
