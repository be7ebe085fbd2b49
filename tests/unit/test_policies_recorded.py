"""The policy that decides as a record says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies import make_policy
from edgebed.policies.files import pack_files
from edgebed.policies.recorded import decisions_file
from edgebed.types import Observation, ObservationSpec, Site

SPEC = ObservationSpec(("a", "b"), ("near", "far"), channels=2)


def file_of(folder: Path, rows: list[tuple[int, int, int, int, int, int, int, float]]) -> str:
    """A file of decisions: seed, epoch, device, turn, site, server, channel, fraction each."""
    names = ("seed", "epoch", "device", "turn", "site", "server", "channel", "edge_fraction")
    columns = dict(zip(names, np.array(rows, np.float64).T, strict=True))
    path = folder / "decisions.npz"
    path.write_bytes(decisions_file(SPEC.slots, columns))
    return str(path)


def seen(epoch: int) -> Observation:
    observation = Observation.empty(SPEC, epoch)
    observation.present[:] = True
    return observation


def test_it_decides_by_seed_epoch_and_device(tmp_path: Path) -> None:
    rows = [(7, 0, 0, 0, 1, 1, 1, 1.0), (7, 3, 1, 0, 2, 0, 1, 0.25), (8, 0, 0, 0, 0, 0, 0, 0.0)]
    policy = make_policy("recorded", SPEC, {"decisions": file_of(tmp_path, rows)})
    policy.reset(7)
    first = policy.decide(seen(0))
    assert (first.site.tolist(), first.server.tolist(), first.channel.tolist()) == ([Site.EDGE, 0], [1, 0], [1, 0])
    later = policy.decide(seen(3))
    assert (later.site[1], later.server[1], later.channel[1], later.edge_fraction[1]) == (Site.SPLIT, 0, 1, 0.25)
    assert later.site[0] == Site.DEVICE  # nothing was recorded
    policy.reset(8)
    assert policy.decide(seen(0)).site.tolist() == [0, 0]


def test_decisions_at_arrivals_come_in_their_turn(tmp_path: Path) -> None:
    rows = [(1, 0, 0, turn, int(turn == 1), 0, 0, float(turn == 1)) for turn in range(3)]
    policy = make_policy("recorded", SPEC, {"decisions": file_of(tmp_path, rows)})
    policy.reset(1)
    assert [int(policy.decide(seen(0)).site[0]) for _ in range(4)] == [0, 1, 0, 0]


def test_what_is_not_allowed_any_more_is_not_done(tmp_path: Path) -> None:
    policy = make_policy("recorded", SPEC, {"decisions": file_of(tmp_path, [(1, 0, 0, 0, 1, 1, 0, 1.0)])})
    policy.reset(1)
    observation = seen(0)
    observation.allowed_actions[0, 3:] = False  # the far server is down
    assert policy.decide(observation).site[0] == Site.DEVICE


def test_a_file_of_other_devices_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    name = file_of(tmp_path, [(1, 0, 0, 0, 1, 1, 0, 1.0)])
    with pytest.raises(SchemaMismatch, match="of the devices a, b; these observations are of c"):
        make_policy("recorded", ObservationSpec(("c",), ("near",)), {"decisions": name})
    packed = pack_files("recorded", {"decisions": "decisions.npz"}, tmp_path)
    assert packed is not None
    assert list(packed.files.values()) == [Path(name).read_bytes()]
    Path(name).write_bytes(Path(name).read_bytes()[:100])
    with pytest.raises(BadInput, match="is not a file of decisions"):
        pack_files("recorded", {"decisions": "decisions.npz"}, tmp_path)
    with pytest.raises(BadInput, match="cannot be read"):
        make_policy("recorded", SPEC, {"decisions": str(tmp_path / "none.npz")})
