"""A lane whose hosts lose each other: servers that die, peers that are silent for too long, and what devices do then.

The rules are those of the programs (`device_agent.dispatch.Dispatcher.server_lost` and ``server_back``,
``edge_server.intake``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from edgebed.simulation.testbed.ingredients import REASONS, UNKNOWN, Layout
from edgebed.simulation.testbed.lane import UNREACHABLE
from edgebed.simulation.testbed.parts import (
    AT_SERVER,
    ENDED,
    RETURNING,
    SENT,
    SENT_OFF,
    SERVING,
    UPLOADING,
    WAITING,
    Part,
)
from edgebed.simulation.testbed.queues import channels_of
from edgebed.simulation.testbed.waiting import WaitingLane

SERVER_LOST, NOT_READY = REASONS.index("server_lost"), REASONS.index("not_ready")

_NOBODYS = -1
"""The life of a server in which nobody has counted an upload."""


class HinderedLane(WaitingLane):
    """The queues of one cell with faults; see `WaitingLane`."""

    def __init__(self, layout: Layout, first_device: int, first_server: int) -> None:
        super().__init__(layout, first_device, first_server)
        self._given_up: set[int] = set()
        self._lives = [0] * layout.servers
        self._gone: set[int] = set()
        self._loading: set[int] = set()
        # Sent to a program that has died: nothing will happen to them by itself.
        self._adrift: list[Part] = []

    def _fork_more(self, other: Self, of: Callable[[Any], Any]) -> None:
        super()._fork_more(other, of)
        for name in ("_given_up", "_lives", "_gone", "_loading"):
            setattr(other, name, type(getattr(self, name))(getattr(self, name)))
        other._adrift = list(map(of, self._adrift))

    # -- servers that are not there -----------------------------------------------------------------------------------

    def kill_server(self, server: int) -> None:
        """Its program dies, with all that it had. Devices do not know that yet."""
        self._stalled_bits = {part: bits for part, bits in self._stalled_bits.items() if part.server != server}
        adrift = {id(part): part for part in (*self.serving[server], *self._queues[server])}
        self._adrift += [part for part in adrift.values() if part.state != ENDED]
        self._lives[server] += 1
        self._gone.add(server)
        self._loading.discard(server)
        if self._server_group[server] >= 0:
            self._load[self._server_group[server]] -= len(self.serving[server])
        self.serving[server] = []
        self._queues[server].clear()
        self.queued_frames[server] = self.queued_tasks[server] = self.held[server] = 0
        self.uploading_bytes[server] = 0.0
        self.server_frame_s[server] = self.layout.server_frame_s[server]
        first = server * self.layout.channels
        for place, channel in enumerate(channels_of(self.layout)[first : first + self.layout.channels], first):
            channel.version = self.channels[place].version + 1  # so that nothing comes of what was foretold
            self.channels[place] = channel

    def start_server(self, server: int) -> None:
        """Its next program listens, and loads what it needs."""
        self._gone.discard(server)
        self._loading.add(server)

    def open_server(self, server: int) -> None:
        """It takes tasks."""
        self._loading.discard(server)

    def _is_held(self, part: Part) -> bool:
        """Does the program that has counted it still live?"""
        return part.life == self._lives[part.server]

    def _upload(self, part: Part, uplink: int) -> None:
        server = part.server
        if server in self._gone:
            part.life = _NOBODYS
            self._begin_upload(part, uplink)
            if not self.channels:  # else nobody grants it anything
                self._at(self.now_s + part.hold_s, SENT, part)
        elif server in self._loading:
            part.life, part.refusal = _NOBODYS, NOT_READY
            self._begin_upload(part, uplink)
            self._refuse_upload(part)
        else:
            part.life = self._lives[server]
            super()._upload(part, uplink)

    def _on_received(self, part: Part) -> None:
        if self._is_held(part):
            super()._on_received(part)
        elif part.state == SENT_OFF:
            self._adrift.append(part)

    def _on_served(self, part: Part) -> None:
        if not self._is_held(part):
            return
        super()._on_served(part)
        if part.state == RETURNING and self._uplink_of(part) in self._given_up:
            part.state = ENDED  # the connection that it goes to has been given up

    def _leave_server(self, part: Part) -> None:
        if self._is_held(part):
            super()._leave_server(part)

    def _cancel(self, part: Part, state: int) -> None:
        if self._is_held(part):
            super()._cancel(part, state)
        elif state != RETURNING:
            part.state = ENDED

    # -- what devices make of it --------------------------------------------------------------------------------------

    def _offload(self, part: Part) -> None:
        if self._uplink_of(part) in self._given_up:
            self._refuse(part, UNREACHABLE)
        else:
            super()._offload(part)

    def lose(self, device: int, server: int) -> None:
        """A device has not heard of a server for too long: what it had sent there is unknown, the rest not done."""
        uplink = device * self.layout.servers + server
        self._given_up.add(uplink)
        sent = self._sent_to(device, server)
        current, waiting = self.uploading.pop(uplink, None), self._uplinks.pop(uplink, ())
        if current is not None:
            self._cut_off(current)
        for part in waiting:
            if part.state == WAITING:
                self.waiting_bytes[device] -= part.bytes
                self._refuse(part, UNREACHABLE)
        for part in sent:
            self._lose(part)
            if part.state == RETURNING:
                part.state = ENDED
            elif part.state == SENT_OFF and self._link_heals(part) > self.now_s:
                self._cancel(part, SENT_OFF)  # what comes later comes over another connection

    def welcome(self, device: int, server: int, *, is_another: bool) -> None:
        """A server answers a device again; another program than before knows nothing of what the last one was sent."""
        uplink = device * self.layout.servers + server
        self._given_up.discard(uplink)
        current = self.uploading.get(uplink)
        if is_another:
            for part in self._sent_to(device, server):
                if not self._is_held(part) and part.state != RETURNING:
                    self._lose(part)
                    part.state = ENDED
        if current is not None and not self._is_held(current):
            del self.uploading[uplink]
            self._cut_off(current)
            self._upload_next(uplink)
        self._adrift = [part for part in self._adrift if part.state != ENDED]

    def miss(self, device: int, server: int) -> None:
        """A server has not heard of a device for too long: what has not come completely is dropped."""
        part = self.uploading.get(device * self.layout.servers + server)
        if part is not None and part.state == UPLOADING and not part.is_refused:
            self._leave_server(part)
            part.life = _NOBODYS

    def _cut_off(self, part: Part) -> None:
        """An upload in progress ends, and is certainly not done."""
        if not part.is_refused:
            self._leave_server(part)
        self._refuse(part, SERVER_LOST)

    def _lose(self, part: Part) -> None:
        """Nobody knows of it; a late answer would still count."""
        if part.outcome is None:
            part.outcome = UNKNOWN
            if not part.is_told:
                self._tell(part, UNKNOWN, SERVER_LOST)

    def _sent_to(self, device: int, server: int) -> list[Part]:
        """What a device has sent to a server completely and has no answer to."""
        return [
            part
            for part in self._parts_of(device)
            if part.is_edge and part.server == server and part.state in (SENT_OFF, AT_SERVER, SERVING, RETURNING)
        ]

    def _parts_of(self, device: int) -> list[Part]:
        adrift = (part for part in self._adrift if part.device == device and part.state != ENDED)
        found = {id(part): part for part in (*super()._parts_of(device), *adrift)}
        return sorted(found.values(), key=lambda part: (part.task, part.is_edge))
