"""Which recordings there are, and what they are labelled."""
