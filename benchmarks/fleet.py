"""The fleet's rows."""
