"""What the scores mean, to look at: tables, pictures, files, words."""
