"""What command lines share, and the commands of `python -m antispoofing`."""
