"""Learning while a run goes on: rows to a learner's program, its weights to the controller."""
