"""Foreign traces as run folders: a CSV file and a mapping of its columns."""
