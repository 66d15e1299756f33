"""Recordings become scores, and scores verdicts."""
