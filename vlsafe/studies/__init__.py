"""Studies: many runs that differ in data, method or seed, compared honestly."""
