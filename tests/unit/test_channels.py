"""Virtual channels: fluid sharing with answers that can be computed by hand."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, structs

from edge_server.channels import ChannelArbiter, Grant, equal_shares
from edge_server.shaping import shaping_of
from edge_server.testing import cell_for
from edgebed.errors import BadInput
from edgebed.protocol.cells import CellSpec, ChannelSettings
from edgebed.protocol.radio import RadioSettings
from edgebed.simulation.scenarios.dc_drl_parameters import DcDrlParameters
from orchestrator.experiment_file import RadioChoice

CHUNK_BYTES = 1000
RATE_BPS = 8000.0
"""One chunk a second for an upload that is alone."""


def arbiter(channels: int = 1) -> ChannelArbiter[str]:
    return ChannelArbiter(channels, equal_shares(RATE_BPS), CHUNK_BYTES)  # type: ignore[arg-type]


def history(made: ChannelArbiter[str], until_s: float = 1000.0) -> list[tuple[float, str]]:
    """When each chunk is granted, asking exactly when something is due."""
    found = []
    while (due_s := made.due_s()) <= until_s:
        grants = made.advance(due_s)
        assert grants, "something was due"
        found += [(due_s, grant.key) for grant in grants]
    return found


def test_an_upload_alone_gets_the_whole_rate() -> None:
    made = arbiter()
    assert made.join("a", 0, 2500, 10.0) == []
    assert made.uploads(0) == 1
    assert history(made) == [(11.0, "a"), (12.0, "a"), (pytest.approx(12.5), "a")]
    assert made.uploads(0) == 0
    assert made.due_s() == math.inf


def test_two_uploads_share_and_the_longer_one_is_alone_in_the_end() -> None:
    made = arbiter()
    made.join("a", 0, 1000, 0.0)
    made.join("b", 0, 2000, 0.0)
    # Half the rate each: a has its chunk after 2 s, b its first too; then b is alone for its second.
    assert history(made) == [(2.0, "a"), (2.0, "b"), (3.0, "b")]


def test_a_second_upload_slows_the_first_from_when_it_joins() -> None:
    made = arbiter()
    made.join("a", 0, 2000, 0.0)
    assert made.join("b", 0, 1000, 0.5) == []
    # a: half a chunk alone, then at half rate: 0.5 + 0.5 / 0.5 = 1.5 s; b's chunk at 0.5 + 2 = 2.5 s;
    # a's second: half of it by 2.5 s, the rest alone: 3.0 s.
    assert history(made) == [(pytest.approx(1.5), "a"), (pytest.approx(2.5), "b"), (pytest.approx(3.0), "a")]


def test_an_upload_that_is_given_up_leaves_the_rate_to_the_others() -> None:
    made = arbiter()
    made.join("a", 0, 1000, 0.0)
    made.join("b", 0, 5000, 0.0)
    assert made.leave("b", 1.0) == []
    assert history(made) == [(pytest.approx(1.5), "a")]


def test_leaving_gives_what_was_due_to_the_others_alone() -> None:
    made = arbiter()
    made.join("a", 0, 3000, 0.0)
    made.join("b", 0, 3000, 0.0)
    assert made.leave("b", 2.5) == [Grant("a", 1)]
    assert made.leave("b", 2.5) == []


def test_channels_do_not_disturb_each_other() -> None:
    made = arbiter(2)
    made.join("a", 0, 1000, 0.0)
    made.join("b", 1, 1000, 0.0)
    assert (made.uploads(0), made.uploads(1)) == (1, 1)
    assert history(made) == [(1.0, "a"), (1.0, "b")]


def test_being_asked_late_delays_a_grant_and_not_the_next() -> None:
    made = arbiter()
    made.join("a", 0, 4000, 0.0)
    assert made.advance(2.9) == [Grant("a", 1), Grant("a", 1)]
    assert made.due_s() == pytest.approx(3.0)


def test_an_upload_that_joins_after_a_late_question_does_not_slow_the_past() -> None:
    made = arbiter()
    made.join("a", 0, 2000, 0.0)
    # Nobody asked at 1.0; when b joins at 1.5, a's first chunk is due and half of the second is carried.
    assert made.join("b", 0, 1000, 1.5) == [Grant("a", 1)]
    assert made.due_s() == pytest.approx(2.5)


def test_the_last_grant_tells_the_mean_rate() -> None:
    made = arbiter()
    made.join("a", 0, 1000, 0.0)
    made.join("b", 0, 1000, 0.0)
    assert made.advance(2.0) == [Grant("a", 1, 4000.0), Grant("b", 1, 4000.0)]


def test_rates_may_differ_between_the_uploads_of_a_channel() -> None:
    weights = {"near": 6000.0, "far": 2000.0}
    made: ChannelArbiter[str] = ChannelArbiter(
        1, lambda channel, keys: [weights[key] / len(keys) for key in keys], CHUNK_BYTES
    )
    made.join("near", 0, 1000, 0.0)
    made.join("far", 0, 1000, 0.0)
    # near: 8000 bit at 3000 bit/s; far: the rest of its bits alone at 2000 bit/s.
    near_s = 8000 / 3000
    assert history(made) == [
        (pytest.approx(near_s), "near"),
        (pytest.approx(near_s + (8000 - 1000 * near_s) / 2000), "far"),
    ]


def test_a_rate_of_zero_waits_for_a_change() -> None:
    made: ChannelArbiter[str] = ChannelArbiter(1, lambda channel, keys: [0.0] * len(keys), CHUNK_BYTES)
    made.join("a", 0, 1000, 0.0)
    assert made.due_s() == math.inf
    assert made.advance(100.0) == []


def interfering_cell(**changes: Any) -> CellSpec:
    """Two devices at 30 m and at 40 m from a server, another at 10 m and 50 m from them."""
    fields: dict[str, Any] = {
        "channels": ChannelSettings(model="sinr", parameters={"bandwidth_hz": 1e6}),
        "devices": ["near", "far"],
        "servers": ["edge", "edge-2"],
        "positions_m": {"near": (30.0, 0.0), "far": (0.0, 40.0), "edge": (0.0, 0.0), "edge-2": (40.0, 0.0)},
    }
    return cell_for(1, "instant", **(fields | changes))


class TestTheRulesOfACell:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"channels": ChannelSettings(model="share", rate_bps=0.0)}, "needs rate_bps above 0"),
            ({"positions_m": UNSET}, "does not say it of near, far, edge, edge-2"),
            ({"positions_m": {"near": (1.0, math.nan), "far": (0.0, 0.0)}}, "does not say it of near, edge, edge-2"),
            ({"devices": []}, "the cell has none"),
            ({"channels": ChannelSettings(model="sinr", parameters={"noise": 1.0})}, "unknown field `noise`; allowed:"),
            (
                {"channels": ChannelSettings(model="sinr", parameters={"bandwidth_hz": 0.0})},
                "`float` > 0.0 - at `$.bandwidth_hz`",
            ),
        ],
    )
    def test_what_a_server_cannot_do_is_said(self, changes: dict[str, Any], says: str) -> None:
        with pytest.raises(BadInput, match=re.escape(says)):
            shaping_of(interfering_cell(**changes), "edge")

    def test_channels_without_a_model_are_not_shaped(self) -> None:
        assert shaping_of(interfering_cell(channels=ChannelSettings()), "edge") is None

    def test_what_is_left_out_is_as_in_the_paper(self) -> None:
        paper = DcDrlParameters()
        assert {name: getattr(paper, name) for name in RadioSettings.__struct_fields__} == structs.asdict(
            RadioSettings()
        )

    def test_a_file_may_say_what_a_cell_may_say(self) -> None:
        """Names and bounds stand in two places: where lines of the file are known, and for whoever gets a cell."""
        assert RadioChoice.model_fields.keys() == set(RadioSettings.__struct_fields__)
        types = get_type_hints(RadioSettings, include_extras=True)
        for name, field in RadioChoice.model_fields.items():
            (meta,) = types[name].__metadata__
            asked = {bound: getattr(each, bound) for each in field.metadata for bound in each.__slots__}
            stated = {bound: getattr(meta, bound) for bound in ("gt", "ge", "le") if getattr(meta, bound) is not None}
            assert asked == stated, name

    def test_uploads_on_one_channel_get_what_the_equation_says(self) -> None:
        """By hand: ``w log2(1 + p g / (noise + the other's p g))``, g the distance to the power -4, noise 1e-13 W."""
        shaping = shaping_of(interfering_cell(), "edge")
        assert shaping is not None
        near_w, far_w, noise_w = 0.1 * 30.0**-4, 0.1 * 40.0**-4, 1e-13
        near, far = (SimpleNamespace(session=SimpleNamespace(name=name)) for name in ("near", "far"))

        def bps(signal_w: float, others_w: float) -> Any:
            return pytest.approx(1e6 * math.log2(1.0 + signal_w / (noise_w + others_w)), rel=1e-6)

        rule: Any = shaping.rule
        assert rule(0, [near, far]) == [bps(near_w, far_w), bps(far_w, near_w)]
        assert rule(0, [far]) == [bps(far_w, 0.0)]
        alone = [1e6 * math.log2(1.0 + power_w / noise_w) for power_w in (near_w, far_w)]
        assert shaping.alone_bps == pytest.approx(sum(alone) / 2)

    def test_what_a_cell_says_of_its_radio_counts(self) -> None:
        """The same by hand, with 0.2 W, the power -3 and -90 dBm, which are 1e-12 W, at the second server."""
        told = {"bandwidth_hz": 2e6, "transmit_power_w": 0.2, "path_loss_exponent": 3.0, "noise_dbm": -90.0}
        shaping = shaping_of(interfering_cell(channels=ChannelSettings(model="sinr", parameters=told)), "edge-2")
        assert shaping is not None
        near_w, far_w = 0.2 * 10.0**-3, 0.2 * math.hypot(40.0, 40.0) ** -3
        near, far = (SimpleNamespace(session=SimpleNamespace(name=name)) for name in ("near", "far"))
        rule: Any = shaping.rule
        expected = [2e6 * math.log2(1.0 + one / (1e-12 + other)) for one, other in ((near_w, far_w), (far_w, near_w))]
        assert rule(0, [near, far]) == pytest.approx(expected, rel=1e-6)
        alone = [2e6 * math.log2(1.0 + power_w / 1e-12) for power_w in (near_w, far_w)]
        assert shaping.alone_bps == pytest.approx(sum(alone) / 2, rel=1e-6)

    def test_each_server_hears_devices_from_where_it_is(self) -> None:
        shaping = shaping_of(interfering_cell(), "edge-2")
        assert shaping is not None
        near = SimpleNamespace(session=SimpleNamespace(name="near"))
        rule: Any = shaping.rule
        assert rule(0, [near]) == [pytest.approx(1e6 * math.log2(1.0 + 0.1 * 10.0**-4 / 1e-13))]

    def test_a_device_of_no_cell_is_heard_as_the_weakest(self) -> None:
        shaping = shaping_of(interfering_cell(), "edge")
        assert shaping is not None
        stranger, far = (SimpleNamespace(session=SimpleNamespace(name=name)) for name in ("stranger", "far"))
        rule: Any = shaping.rule
        assert rule(0, [stranger]) == rule(0, [far])


Joins = st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(1, 7000)), min_size=1, max_size=8)


@given(Joins, st.floats(0.05, 3.0))
@settings(deadline=None)
def test_the_channel_carries_exactly_its_rate_while_it_is_busy(joins: list[tuple[float, int]], step_s: float) -> None:
    """Work conservation: with arrivals at known instants, the busy periods end when a FIFO of the same bits would.

    Asked in steps of any size: the instants do not depend on when one asks.
    """
    joins = sorted(joins)
    end_s = 0.0
    for at_s, size in joins:
        end_s = max(end_s, at_s) + size * 8 / RATE_BPS
    made = arbiter()
    granted: dict[str, int] = {}
    rates: dict[str, float] = {}

    def note(grants: list[Grant[str]]) -> None:
        for grant in grants:
            granted[grant.key] = granted.get(grant.key, 0) + grant.chunks
            rates[grant.key] = grant.mean_bps

    now_s = 0.0
    for number, (at_s, size) in enumerate(joins):
        while now_s + step_s < at_s:
            now_s += step_s
            note(made.advance(now_s))
        now_s = at_s
        note(made.join(str(number), 0, size, at_s))
    note(made.advance(end_s - 1e-6))
    assert made.uploads(0) >= 1
    note(made.advance(end_s + 1e-6))
    assert made.uploads(0) == 0
    assert granted == {str(number): math.ceil(size / CHUNK_BYTES) for number, (_, size) in enumerate(joins)}
    assert all(0.0 < rate <= RATE_BPS * (1 + 1e-9) for rate in rates.values())
