"""The report of a run: what it found, how sure that is, and how it was made."""
