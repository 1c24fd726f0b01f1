"""What a run will need, from its config alone: memory, time, disk, and the least sharding that fits."""
