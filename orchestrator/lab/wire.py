"""A cable in user space: two TAP interfaces, and between them a rate, a delay, jitter and loss.

For kernels without netem. Run as a program by the lab's keeper, one a link, with real-time priority where that is
allowed::

    python -m orchestrator.lab.wire NETWORK NEAR FAR CONTROL SHAPE SEED

It makes the interfaces NEAR and FAR in the network namespace NETWORK; who starts it puts one into a bridge and the
other into a host. They exist for as long as it runs.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import select
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.lab.control import ControlSocket
from orchestrator.lab.kernel import die_with_parent, enter_network
from orchestrator.lab.shaping import LinkShape, Shaper, shape_from_plain

_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_FRAME_BYTES = 65536
_FRAMES_A_TURN = 64
REALTIME_PRIORITY = 10
LONGEST_WAIT_S = 60.0


def open_tap(name: str) -> int:
    """Make a TAP interface in the present network namespace; it lives until the descriptor is closed."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Wire:
    """Carries frames between two descriptors until its process ends.

    Args:
        near: one end.
        far: the other.
        shape: of both directions.
        rng: for jitter and loss.
    """

    def __init__(self, near: int, far: int, shape: LinkShape, rng: random.Random) -> None:
        # (read from, write to, how)
        self._ways = ((near, far, Shaper(shape, rng)), (far, near, Shaper(shape, rng)))
        self._is_cut = False
        self._carried_bytes = 0

    def actions(self) -> dict[str, Any]:
        """What can be asked of it over its control socket."""
        return {"shape": self.reshape, "cut": self.cut, "restore": self.restore, "status": self.status}

    def reshape(self, shape: dict[str, float]) -> dict[str, Any]:
        """Be another link from now on; frames under way keep their arrival."""
        wanted = shape_from_plain(shape)
        for _, _, shaper in self._ways:
            shaper.shape = wanted
        return self.status()

    def cut(self) -> dict[str, Any]:
        """Lose every frame, both ways, those under way too; neither end is told."""
        self._is_cut = True
        for _, _, shaper in self._ways:
            shaper.forget()
        return self.status()

    def restore(self) -> dict[str, Any]:
        """Carry frames again."""
        self._is_cut = False
        return self.status()

    def status(self) -> dict[str, Any]:
        """Its shape, whether it is cut, what it carried and dropped."""
        (_, _, one), (_, _, other) = self._ways
        return {
            "shape": one.shape.to_plain(),
            "cut": self._is_cut,
            "carried_bytes": self._carried_bytes,
            "dropped_frames": one.dropped + other.dropped,
            "real_time": os.sched_getscheduler(0) == os.SCHED_FIFO,
        }

    def turn(self, control: ControlSocket) -> None:
        """Wait for the next thing to do, and do it."""
        # select and not poll: its timeout is exact to microseconds, that of poll to milliseconds.
        due_s = min(shaper.due_s for _, _, shaper in self._ways)
        wait_s = min(max(0.0, due_s - time.monotonic()), LONGEST_WAIT_S)
        readable, _, _ = select.select([*(way[0] for way in self._ways), control.fileno()], [], [], wait_s)
        if control.fileno() in readable:
            control.serve_one()
        for source, target, shaper in self._ways:
            if source in readable:
                self._take(source, shaper)
            for frame in shaper.take_due(time.monotonic()):
                self._carried_bytes += len(frame)
                _write(target, frame)

    def _take(self, source: int, shaper: Shaper) -> None:
        for _ in range(_FRAMES_A_TURN):
            try:
                frame = os.read(source, _FRAME_BYTES)
            except OSError as error:  # nothing more to read, or the interface is down (a host is off)
                if error.errno in (errno.EAGAIN, errno.EIO):
                    return
                raise
            if not self._is_cut:
                shaper.offer(frame, time.monotonic())


def _write(target: int, frame: bytes) -> None:
    try:
        os.write(target, frame)
    except OSError as error:  # a host that is off has its end down; a full queue drops
        if error.errno not in (errno.EIO, errno.EAGAIN, errno.ENOBUFS):
            raise


def _prefer_real_time() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REALTIME_PRIORITY))
    except OSError:
        # Not allowed in some containers. The link works, later at times; its status says so, and probing shows it.
        return


def main(arguments: list[str]) -> int:
    """Run until the parent ends."""
    network, near, far, control_path, shape, seed = arguments
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on the terminal that the lab was started from
    control = ControlSocket(Path(control_path), {})  # made here, in the machine's own namespaces
    enter_network(network)
    # Not for secrets: jitter and loss are to come out the same again.
    wire = Wire(open_tap(near), open_tap(far), shape_from_plain(json.loads(shape)), random.Random(seed))  # noqa: S311
    control.actions = wire.actions()
    _prefer_real_time()
    print("ready", flush=True)
    while True:
        wire.turn(control)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
