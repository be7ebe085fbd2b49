"""Faults as part of an experiment: planned beforehand, done by the clock, lifted whatever happens.

``docs/faults.md`` is the page for users. `schedule` is pure, `hands` does things to hosts, `driver` keeps the time.
"""
