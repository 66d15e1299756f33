"""The families of detectors: what their files are like, and the back ends that `model.py` does not have."""
