"""Files too large to be held in memory, indexed once: streamed -> memory-mapped Arrow shards in the cache directory."""
