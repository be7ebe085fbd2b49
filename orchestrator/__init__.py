"""PROGRAM: plans, starts, watches and collects runs. It may use everything; nothing else may use it."""
