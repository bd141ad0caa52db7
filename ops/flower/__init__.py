"""Flower for a fleet: its options, its Celery app, its secrets. It watches; it must not be able to command."""
