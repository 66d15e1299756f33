"""A detector from a file and to a file."""
