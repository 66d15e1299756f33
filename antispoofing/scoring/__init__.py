"""Turn recordings into scores, and scores into verdicts."""
