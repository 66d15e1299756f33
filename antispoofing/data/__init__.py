"""Data sets: finding recordings and their labels."""
