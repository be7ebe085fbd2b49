"""Runs as files for other tools: CSV, and Minari datasets."""
