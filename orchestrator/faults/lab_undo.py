"""Undo what a fault did to a virtual host. A program of its own, and one that starts fast.

A timer runs it::

python -m orchestrator.faults.lab_undo LAB HOST restore|unshape|cool
"""

from __future__ import annotations

import sys

from edgebed.errors import BadInput, WorkFailed
from orchestrator.lab.live import LiveLab
from orchestrator.lab.spec import lab_names

RESTORE, UNSHAPE, COOL = "restore", "unshape", "cool"


def main(arguments: list[str]) -> int:
    """Undo something, unless the lab is gone."""
    lab, host, what = arguments
    if lab not in lab_names():
        return 0
    try:
        live = LiveLab.named(lab)
        if what == RESTORE:
            live.restore(host)
        elif what == UNSHAPE:
            live.set_link(host, live.lab.host(host).link)
        else:
            live.script_sensors(host, frequency_hz=None, throttle_word=None)
    except (BadInput, WorkFailed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
