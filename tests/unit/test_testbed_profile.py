"""Profiles: files that come back as they went, problems that name both sides, draws that follow what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.simulation.testbed.chance import correct_frames, device_keys, task_chances
from edgebed.simulation.testbed.defaults import LOCAL_DELAY_S
from edgebed.simulation.testbed.hosts import Chosen, Testbed, Work
from edgebed.simulation.testbed.profile import (
    Profile,
    draw,
    profile_from_plain,
    profile_text,
    quantiles_of,
    read_profile,
    write_profile,
)
from tests.simulated_cells import Host, cell, hosts_of, profile


def plain() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(profile(cell()))
    return found


def test_a_profile_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = profile(cell())
    write_profile(written, tmp_path / "p.yaml")
    assert read_profile(tmp_path / "p.yaml") == written
    assert profile_text(read_profile(tmp_path / "p.yaml")) == profile_text(written)


def test_hosts_that_are_alike_are_written_once() -> None:
    few = profile(cell())
    many = profile(cell(devices=[f"pi-{number}" for number in range(1000)]))
    assert len(profile_text(many)) < len(profile_text(few)) + 1000 * 20


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"profile_schema": 99}, SchemaMismatch, "profile_schema is 99; this edgebed reads 1: calibrate again"),
        ({"colour": 1}, BadInput, "unknown field `colour`"),
        ({"frame_bytes": [5.0, 1.0]}, BadInput, "frame_bytes: quantiles are finite numbers"),
        ({"frame_bytes": []}, BadInput, "Expected `array` of length >= 1"),
        ({"frame_bytes": [-1.0]}, BadInput, "frame_bytes: begins with -1.0; allowed: 0 and more"),
        ({"cycles_per_frame": "many"}, BadInput, "Expected `float`, got `str`"),
        ({"deciders": {}}, BadInput, "deciders.controller: is missing"),
        ({"within_task_correlation": 2.0}, BadInput, "Expected `float` <= 1.0"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], kind: type[BadInput], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        profile_from_plain(plain() | change, "p.yaml")
    assert "p.yaml" in str(caught.value)


def test_files_that_are_no_profiles(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    with pytest.raises(BadInput, match=r"p\.yaml: cannot be read"):
        read_profile(path)
    path.write_text("a: [1")
    with pytest.raises(BadInput, match="is not YAML"):
        read_profile(path)
    path.write_text("name: demo")
    with pytest.raises(BadInput, match="it has no `profile_schema`; `edgebed calibrate` writes one"):
        read_profile(path)


def test_a_host_on_processors_that_are_not_there_is_a_problem() -> None:
    given = plain()
    given["devices"]["pi-1"]["processor"] = "machine"
    with pytest.raises(BadInput, match="pi-1 is on 'machine'; `processors` has: none"):
        profile_from_plain(given)


@pytest.mark.parametrize(
    ("workload", "model", "boards", "text"),
    [
        ("instant", "", {}, "the profile is of workload 'digits', the experiment runs 'instant'"),
        ("digits", "b" * 64, {}, "fitted with model aaaaaaaaaaaa, the experiment runs bbbbbbbbbbbb; calibrate again"),
        ("digits", "", {"pi-1": "raspberry-pi-5"}, "pi-1 is a raspberry-pi-5 in the hosts file and a raspberry-pi-4b"),
    ],
)
def test_a_profile_of_something_else_names_both_sides(
    workload: str, model: str, boards: dict[str, str], text: str
) -> None:
    found = profile(cell(), model_sha256="a" * 64)
    found.check_fits("digits", "a" * 64, {"pi-1": "raspberry-pi-4b", "pi-77": "anything"})
    with pytest.raises(SchemaMismatch, match=text):
        found.check_fits(workload, model, boards)


def test_hosts_that_a_profile_does_not_have_are_named_and_a_star_stands_for_all() -> None:
    found = profile(cell())
    with pytest.raises(BadInput, match=r"no device 'pi-4' and no '\*'; it has: pi-1, pi-2, pi-10"):
        Testbed(found, [Host("pi-4")], [Host("edge-1")])
    found.devices["*"] = found.devices["pi-1"]
    assert Testbed(found, [Host("pi-4")], [Host("edge-1")]).device_profiles == [found.devices["pi-1"]]


# --- what is stated ---------------------------------------------------------------------------------------------------


def test_stated_speeds_follow_board_and_slowdown() -> None:
    spec = cell()
    found = profile(spec)
    cycles = found.cycles_per_frame
    # A Pi 4B is the reference, 1.5 GHz; a generic PC has its clock.
    assert found.device("pi-1").compute.seconds_per_frame == pytest.approx(cycles / 1.5e9)
    assert found.server("edge-1").compute.seconds_per_frame == pytest.approx(cycles / 2.5e9, rel=0.01)
    assert found.source.kind == "stated"
    assert "no profile was given" in found.source.text
    assert found.device("pi-1").link.downlink_s[0] > LOCAL_DELAY_S, "over a network it takes longer"


# --- draws ------------------------------------------------------------------------------------------------------------


def test_draws_follow_the_stored_quantiles() -> None:
    rng = np.random.default_rng(1)
    sample = rng.lognormal(0.0, 0.4, 20_000)
    drawn = draw(quantiles_of(sample), rng.random(20_000))
    for share in (0.05, 0.5, 0.95):
        assert np.quantile(drawn, share) == pytest.approx(np.quantile(sample, share), rel=0.03)
    assert set(draw([2.5], rng.random(10))) == {2.5}


def test_a_tasks_chances_are_its_own_whatever_else_is_simulated() -> None:
    both = device_keys(3, ["pi-1", "pi-2"], "task")
    together = task_chances(np.repeat(both, 4), np.tile(np.arange(4), 2))
    alone = task_chances(device_keys(3, ["pi-2"], "task"), np.array([2]))
    assert np.array_equal(together[6], alone[0])
    assert not np.array_equal(alone, task_chances(device_keys(4, ["pi-2"], "task"), np.array([2])))


def ingredients_of(found: Profile, tasks: int, site: int) -> Any:
    spec = cell()
    testbed = Testbed(found, [Host(name) for name in spec.devices], [Host("edge-1", "generic-x86")])
    chances = task_chances(np.repeat(device_keys(1, ["pi-1"], "task"), tasks), np.arange(tasks))
    zeros = np.zeros(tasks)
    whole = np.zeros(tasks, np.int64)
    work = Work(np.arange(tasks), whole, zeros, zeros + 9, whole + 4, testbed.frame_bytes(chances), chances)
    return testbed.ingredients(work, Chosen(zeros, whole + site, whole, whole, zeros + 0.5))


def test_a_task_is_as_hard_at_the_edge_as_on_the_device_as_far_as_the_profile_says() -> None:
    found = profile(cell())
    ratios = quantiles_of(np.random.default_rng(2).lognormal(0.0, 0.3, 5000))
    for name in ("pi-1", "pi-2", "pi-10"):
        found.devices[name].compute.ratio = ratios
    found.servers["edge-1"].compute.ratio = ratios
    for correlation in (0.0, 0.6, 1.0):
        found.within_task_correlation = correlation
        given = ingredients_of(found, 6000, site=2)
        here, there = (np.argsort(np.argsort(each)) for each in (given.device_compute_s, given.server_compute_s))
        assert np.corrcoef(here, there)[0, 1] == pytest.approx(correlation, abs=0.04)


def test_a_split_task_sends_the_nearest_whole_number_of_frames() -> None:
    given = ingredients_of(profile(cell()), 3, site=2)
    assert list(given.edge_frames) == [2, 2, 2]
    whole = ingredients_of(profile(cell()), 3, site=1)
    assert (given.upload_bytes < whole.upload_bytes).all()
    assert given.device_compute_s == pytest.approx(ingredients_of(profile(cell()), 3, site=0).device_compute_s / 2)
    rate_bps = 2e7
    assert whole.uplink_hold_s == pytest.approx(8 * whole.upload_bytes / rate_bps)


def test_frames_are_right_as_often_as_the_site_says() -> None:
    tasks = 4000
    keys = np.repeat(device_keys(1, ["pi-1"], "frame"), tasks)
    frames = np.full(tasks, 5)
    accuracy = np.tile([0.9, 0.9, 0.5, 0.5, 0.5], (tasks, 1))
    found = correct_frames(keys, np.arange(tasks), frames, accuracy)
    assert found.mean() == pytest.approx(2 * 0.9 + 3 * 0.5, abs=0.05)
    assert (correct_frames(keys, np.arange(tasks), np.full(tasks, 1), np.ones((tasks, 5))) == 1).all()


def test_the_layout_takes_what_the_profile_leaves_open_from_the_hosts_file() -> None:
    spec = cell()
    assert (hosts_of(spec).layout().workers, hosts_of(spec).layout().queue_tasks) == ((1,), (3,))
    found = profile(spec)
    found.servers["edge-1"].workers, found.servers["edge-1"].queue_tasks = 4, 50
    told = Testbed(found, [Host(name) for name in spec.devices], [Host("edge-1")]).layout()
    assert (told.workers, told.queue_tasks) == ((4,), (50,))


def test_yaml_of_a_profile_is_for_people_too() -> None:
    told = yaml.safe_load(profile_text(profile(cell())))
    assert told["devices"]["pi-1"]["board"] == "raspberry-pi-4b"
    assert told["source"]["kind"] == "stated"
