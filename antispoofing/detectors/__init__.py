"""Read detectors from files, and write them to files."""
