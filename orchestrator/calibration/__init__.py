"""Fitting a profile of a testbed to its traces, and telling how far what it simulates is from what was measured."""
