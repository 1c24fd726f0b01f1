"""Readers: one file per format, each yielding Conversations."""
