"""A run from end to end at toy size, by its very config, before a weight is downloaded or a GPU is rented."""
