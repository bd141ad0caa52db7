"""Fixtures of the ledger's tests."""

from tests.servers import own_valkey, valkey, valkey_server

__all__ = ["own_valkey", "valkey", "valkey_server"]
