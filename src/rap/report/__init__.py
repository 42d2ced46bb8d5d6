"""The table stage, and every other view of finished runs."""
