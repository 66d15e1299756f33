"""The back ends of detectors other than XLS-R + AASIST, one in a file."""
