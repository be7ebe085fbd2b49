"""Replaying a recorded run: its decisions again, its day again, or another policy judged on it without hosts.

===============  ====================================================================================================
`source`         the run that is replayed: checked, its cells sorted into days
`planning`       the plan of a replay, made of the source's
`reevaluate`     another policy on the recorded day; `reading` reads it, `day` puts it in order of time, `queues`
                 recompute what tasks met, `observing` shows it to the policy, `missing` fills in what nobody recorded,
                 `tables` writes the rows
`hosts_modes`    ``rerun`` and ``open-loop``, which go through the ordinary runners
`comparison`     replay against source, seed by seed and task by task
===============  ====================================================================================================
"""
