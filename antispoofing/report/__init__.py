"""Results for people: tables, pictures, files, and an analysis in words."""
