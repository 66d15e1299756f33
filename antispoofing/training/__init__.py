"""A detector made better."""
