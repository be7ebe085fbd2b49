"""A lane whose hosts are out of each other's reach for a while: programs that stand still or die, links that are cut.

The rules are those of the programs (`device_agent.dispatch.Dispatcher.server_lost` and ``server_back``,
``edge_server.intake``). Whoever drives the lane tells it of everything at its instant, and until when it lasts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from edgebed.simulation.testbed.ingredients import REASONS, UNKNOWN, Layout
from edgebed.simulation.testbed.lane import UNREACHABLE, Lane, channels_of
from edgebed.simulation.testbed.parts import (
    AT_SERVER,
    BACK,
    ENDED,
    RECEIVED,
    REFUSED,
    REJOINED,
    RETURNING,
    SENT,
    SENT_OFF,
    SERVING,
    TIMED_OUT,
    UPLOADING,
    WAITING,
    Part,
)

SERVER_LOST, NOT_READY = REASONS.index("server_lost"), REASONS.index("not_ready")

_NOBODYS = -1
"""The life of a server in which nobody has counted an upload."""


class HinderedLane(Lane):
    """The queues of one cell with faults; see `Lane`. Devices and servers are numbered within the lane."""

    def __init__(self, layout: Layout, first_device: int, first_server: int) -> None:
        super().__init__(layout, first_device, first_server)
        self._device_wakes_s: dict[int, float] = {}
        self._server_wakes_s: dict[int, float] = {}
        self._healed_s: dict[int, float] = {}
        self._given_up: set[int] = set()
        self._lives = [0] * layout.servers
        self._gone: set[int] = set()
        self._loading: set[int] = set()
        # Uploads that nothing of passes just now, and what they still have to send.
        self._stalled_bits: dict[Part, float] = {}
        # Sent to a program that has died: nothing will happen to them by itself.
        self._adrift: list[Part] = []
        waits = {
            BACK: (self._device_wakes, self._link_heals),
            REFUSED: (self._device_wakes, self._server_wakes, self._link_heals),
            RECEIVED: (self._server_wakes, self._link_heals),
            SENT: (self._device_wakes,),
            TIMED_OUT: (self._device_wakes,),
        }
        handlers = list(self._handlers)
        for kind, reasons in waits.items():
            handlers[kind] = partial(self._when_possible, kind, reasons, handlers[kind])
        self._handlers = (*handlers, self._on_rejoined)

    def _fork_more(self, other: Lane, of: Callable[[Any], Any]) -> None:
        assert isinstance(other, HinderedLane)
        for name in ("_device_wakes_s", "_server_wakes_s", "_healed_s", "_given_up", "_lives", "_gone", "_loading"):
            setattr(other, name, type(getattr(self, name))(getattr(self, name)))
        other._stalled_bits = {of(part): bits for part, bits in self._stalled_bits.items()}
        other._adrift = list(map(of, self._adrift))

    def _uplink_of(self, part: Part) -> int:
        return part.device * self.layout.servers + part.server

    # -- what has to wait ---------------------------------------------------------------------------------------------

    def _when_possible(
        self, kind: int, reasons: tuple[Callable[[Part], float], ...], handler: Callable[[Any], None], part: Part
    ) -> None:
        until_s = max(reason(part) for reason in reasons)
        if until_s > self.now_s:
            _prolong(part, kind, until_s - self.now_s)
            self._at(until_s, kind, part)
        else:
            handler(part)

    def _device_wakes(self, part: Part) -> float:
        return self._device_wakes_s.get(part.device, 0.0)

    def _server_wakes(self, part: Part) -> float:
        return self._server_wakes_s.get(part.server, 0.0)

    def _link_heals(self, part: Part) -> float:
        return self._healed_s.get(self._uplink_of(part), 0.0)

    def stop_device(self, device: int, until_s: float) -> None:
        """Its program stands still; what it computes is in the layout's disturbances."""
        self._device_wakes_s[device] = until_s
        for server in range(self.layout.servers):
            self._stall(device * self.layout.servers + server)

    def stop_server(self, server: int, until_s: float) -> None:
        """Its program stands still; what it computes is in the layout's disturbances."""
        self._server_wakes_s[server] = until_s
        for channel in self._channels_of_server(server):
            channel.stand_still(self.now_s, until_s)
            if channel.first is not None:
                self._foretell(channel.first)

    def cut(self, device: int, server: int, until_s: float) -> None:
        """Nothing passes between them; what is sent meanwhile comes then."""
        uplink = device * self.layout.servers + server
        self._healed_s[uplink] = max(until_s, self._healed_s.get(uplink, 0.0))
        self._stall(uplink)

    def _stall(self, uplink: int) -> None:
        """On a shaped channel the others have for themselves what this upload cannot use."""
        part = self.uploading.get(uplink)
        if part is None or not self.channels or part not in self._channel(part):
            return
        channel = self._channel(part)
        self._stalled_bits[part] = channel.left_bits(part, self.now_s)
        channel.leave(part, self.now_s)
        self._foretell(part)
        self._at(max(self._device_wakes(part), self._link_heals(part)), REJOINED, part)

    def _on_rejoined(self, part: Part) -> None:
        if part not in self._stalled_bits:
            return
        until_s = max(self._device_wakes(part), self._link_heals(part))
        if until_s > self.now_s:
            self._at(until_s, REJOINED, part)
            return
        bits = self._stalled_bits.pop(part)
        if self._is_held(part):
            self._channel(part).join(part, bits, self.now_s)
            self._foretell(part)

    # -- servers that are not there -----------------------------------------------------------------------------------

    def _channels_of_server(self, server: int) -> list[Any]:
        count = self.layout.channels
        return self.channels[server * count : (server + 1) * count]

    def kill_server(self, server: int) -> None:
        """Its program dies, with all that it had. Devices do not know that yet."""
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
            if max(self._device_wakes(part), self._link_heals(part)) > self.now_s:
                self._stall(uplink)

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
        self._stalled_bits.pop(part, None)
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


def _prolong(part: Part, kind: int, by_s: float) -> None:
    """The stage that ends with it lasts so much longer."""
    if kind == BACK:
        part.downlink_s += by_s
    elif kind in (SENT, RECEIVED):
        part.uplink_s += by_s
        if kind == SENT:
            part.hold_s += by_s
