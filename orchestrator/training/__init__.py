"""Trainings on the command line: their settings, their folders, their curves."""
