"""Alembic's environment and the steps from one schema to the next; `store.open_state` applies them."""
