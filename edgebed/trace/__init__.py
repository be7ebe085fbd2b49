"""The record of a run: what each column means, how rows survive crashes, how a run folder is read."""
