"""Judges: from a Response to a Verdict."""
