from __future__ import annotations

import math

from device_agent.timers import Timers


def test_what_is_due_runs_in_order_of_time_and_then_of_setting() -> None:
    timers, ran = Timers(), []
    timers.at(3.0, lambda now_s: ran.append(("c", now_s)))
    timers.at(1.0, lambda now_s: ran.append(("a", now_s)))
    timers.at(1.0, lambda now_s: ran.append(("b", now_s)))
    assert timers.due_s == 1.0
    timers.run(0.5)
    assert ran == []
    timers.run(2.0)
    assert ran == [("a", 2.0), ("b", 2.0)]
    assert timers.due_s == 3.0


def test_what_is_set_meanwhile_and_due_runs_too() -> None:
    timers, ran = Timers(), []

    def tick(now_s: float) -> None:
        ran.append(now_s)
        if len(ran) < 4:
            timers.at(float(len(ran)), tick)

    timers.at(0.0, tick)
    timers.run(2.5)
    assert ran == [2.5, 2.5, 2.5]
    assert timers.due_s == 3.0
    timers.clear()
    assert timers.due_s == math.inf
