"""What a data set's own shortcuts, gaps and leaks are, before anyone trains on it or measures with it."""
