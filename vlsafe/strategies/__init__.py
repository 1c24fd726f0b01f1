"""Attention choice and, later, sharding."""
