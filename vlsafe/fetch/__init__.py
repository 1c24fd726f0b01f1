"""Data and models by name, verified."""
