"""The testbed in virtual time: a profile of its hosts, and the queues that tasks pass through.

=================  =======================================================================================
`profile`          what hosts, links and deciders are like, as numbers in a YAML file; fitted or stated
`hosts`            a profile applied to named hosts: ingredients of decided tasks
`defaults`         a profile from what boards and workloads state, where none was fitted
`chance`           what is random about each planned task, drawn once, so that every policy meets the same
`ingredients`      what the queues need of each task, and what they tell of it
`pipeline`         the queues: executors, uplinks, channels, servers; lanes are independent cells
`features`         what hosts would show of that state to those who decide
=================  =======================================================================================
"""
