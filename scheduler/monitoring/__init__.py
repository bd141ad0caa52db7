"""Metrics of the scheduler and its fleet, for Prometheus.

Nouns: meters (what the service counts while it works), a collector (reads the database and the ledger whenever
somebody asks, so that nothing is kept twice). Labels are names of what is declared or registered, VMs included, and
words of fixed lists: never an id of a run or a task. It must not change anything.
"""
