"""Small models of the CCM-MADRL scenarios: units, admission, energy, battery, legacy streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebed.simulation.compute.units import finish_on_units_s
from edgebed.simulation.energy.battery import charge_after_mj
from edgebed.simulation.energy.frequency_law import computing_at_j
from edgebed.simulation.legacy_streams import LegacyStreams
from edgebed.simulation.scenarios.ccm import by_upload
from edgebed.simulation.scenarios.ccm_admission import admitted

INF = np.inf


class TestUnits:
    def test_two_units_three_tasks(self) -> None:
        """Ends at 4 and 3; the third, there at 2, starts at 3."""
        finish = finish_on_units_s(np.array([[0.0, 1.0, 2.0]]), np.array([[4.0, 2.0, 1.0]]), 2, over_counts=False)
        assert finish.tolist() == [[4.0, 3.0, 4.0]]

    def test_over_counting_adds_all_earlier_work_to_the_earliest_unit(self) -> None:
        """Units free at 4 and 3. First 4 more: at 7 and 4. Then 2 more: at 7 and 6. So the third ends at 7."""
        finish = finish_on_units_s(np.array([[0.0, 1.0, 2.0]]), np.array([[4.0, 2.0, 1.0]]), 2, over_counts=True)
        assert finish.tolist() == [[4.0, 3.0, 7.0]]

    def test_rows_with_fewer_tasks_than_units_do_not_wait(self) -> None:
        upload = np.array([[0.5, 1.0, INF, INF], [0.0, 0.0, 0.0, 0.0]])
        work = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
        finish = finish_on_units_s(upload, work, 3, over_counts=False)
        assert finish.tolist() == [[1.5, 2.0, INF, INF], [1.0, 2.0, 3.0, 5.0]]

    def test_a_late_upload_finds_a_unit_idle(self) -> None:
        finish = finish_on_units_s(np.array([[0.0, 9.0]]), np.array([[1.0, 1.0]]), 1, over_counts=False)
        assert finish.tolist() == [[1.0, 10.0]]

    def test_many_units_behave_as_a_multi_server_queue(self) -> None:
        """M/M/4 at 80 % load: the mean wait is Erlang's C over what is free, 0.7455 of a service time."""
        rng = np.random.default_rng(3)
        tasks = 4000
        upload = np.cumsum(rng.exponential(1.0 / 3.2, (20, tasks)), axis=1)
        work = rng.exponential(1.0, (20, tasks))
        wait = finish_on_units_s(upload, work, 4, over_counts=False) - upload - work
        assert wait[:, 500:].mean() == pytest.approx(0.7455, rel=0.1)


class TestOrder:
    def test_by_time_however_little_it_differs_and_equal_ones_as_they_are(self) -> None:
        next_s = np.nextafter(1.0, 2.0)
        upload_s = np.array([[next_s, 1.0, INF, 0.5], [1.0, 1.0, 0.25, 1.0], [4.0, 3.0, 2.0, 1.0]])
        assert by_upload(upload_s).T.tolist() == [[3, 1, 0, 2], [6, 4, 5, 7], [11, 10, 9, 8]]

    def test_as_a_stable_sort_of_each_row(self) -> None:
        upload_s = np.random.default_rng(2).choice([0.1, 0.2, 0.3, INF], (50, 10))
        wanted = upload_s.argsort(axis=1, kind="stable") + 10 * np.arange(50)[:, None]
        got = by_upload(upload_s).T
        assert (got == wanted).all()


class TestAdmission:
    def test_all_when_there_is_room(self) -> None:
        offers = np.array([[True, False, True]])
        assert (admitted(offers, np.full((1, 3), 5.0), np.zeros((1, 3)), 2, 10.0) == offers).all()

    def test_by_priority_when_there_are_too_many(self) -> None:
        taken = admitted(np.ones((1, 4), bool), np.ones((1, 4)), np.array([[0.1, 0.9, -0.5, 0.3]]), 2, 10.0)
        assert taken.tolist() == [[False, True, False, True]]

    def test_equal_priorities_go_by_device_and_zeros_are_equal(self) -> None:
        taken = admitted(np.ones((1, 3), bool), np.ones((1, 3)), np.array([[0.0, -0.0, 0.0]]), 2, 10.0)
        assert taken.tolist() == [[True, True, False]]

    def test_one_that_does_not_fit_does_not_stop_the_next(self) -> None:
        sizes = np.array([[6.0, 5.0, 3.0]])
        taken = admitted(np.ones((1, 3), bool), sizes, np.array([[0.9, 0.5, 0.1]]), 3, 10.0)
        assert taken.tolist() == [[True, False, True]]

    @given(st.integers(0, 2**32 - 1), st.integers(1, 70))
    def test_never_more_than_there_is_room_for(self, seed: int, devices: int) -> None:
        rng = np.random.default_rng(seed)
        offers = rng.random((5, devices)) < 0.7
        sizes, priority = rng.uniform(0.1, 5.0, (5, devices)), rng.uniform(-1.0, 1.0, (5, devices))
        taken = admitted(offers, sizes, priority, 6, 15.0)
        assert not (taken & ~offers).any()
        assert (taken.sum(axis=1) <= 6).all()
        assert ((sizes * taken).sum(axis=1) <= 15.0).all()
        for row in range(5):
            left = np.flatnonzero(offers[row] & ~taken[row])
            if len(left) and taken[row].sum() < 6:  # whoever was left did not fit beside those before it
                best = left[priority[row, left].argmax()]
                before = taken[row] & (priority[row] > priority[row, best])
                assert sizes[row, before].sum() + sizes[row, best] >= 15.0


class TestEnergy:
    def test_computing_follows_the_exponent(self) -> None:
        cycles, hertz = np.array([2e8]), np.array([1.5e9])
        assert computing_at_j(cycles, hertz, 5e-27, 1.0) == pytest.approx(5e-27 * 2e8 * 1.5e9)
        assert computing_at_j(cycles, hertz, 5e-27, 2.0) == pytest.approx(5e-27 * 2e8 * 1.5e9**2)

    def test_a_battery_stays_between_empty_and_full(self) -> None:
        charge = charge_after_mj(np.array([0.5, 1e-6, 0.6]), np.array([1000.0, 2.0, 0.0]), 500.0, 0.6)
        assert charge == pytest.approx([0.5 - 1e-3 + 5e-4, 1e-6 - 2e-6 + 5e-4, 0.6])
        assert charge_after_mj(np.array([1e-6]), np.array([5.0]), 0.0, 1.0) == 0.0


class TestLegacyStreams:
    @pytest.mark.parametrize("count", [50, 7, 1])
    def test_equal_numpy_s_generators_whoever_draws_when(self, count: int) -> None:
        """Rows draw at different times, and more than a block; odd counts leave a second normal number for later."""
        streams = LegacyStreams(5, 300)
        streams.seed(slice(None), np.arange(5))
        numpys = [np.random.RandomState(seed) for seed in range(5)]
        for turn in range(40):
            rows = slice(None) if turn % 3 else np.array([0, 3])
            drawn = streams.uniforms(rows, 3 * count)
            streams.skip_normals(rows, count)
            for at, row in enumerate(np.arange(5)[rows]):
                assert drawn[at].tolist() == numpys[row].random_sample(3 * count).tolist()
                numpys[row].normal(0.001, 0.0, size=count)

    def test_seeding_some_again_leaves_the_others_alone(self) -> None:
        streams = LegacyStreams(2, 10)
        streams.seed(slice(None), np.array([1, 2]))
        streams.uniforms(slice(None), 25)
        streams.skip_normals(slice(None), 3)
        streams.seed(np.array([0]), np.array([9]))
        other = np.random.RandomState(2)
        other.random_sample(25)
        other.normal(size=3)
        drawn = streams.uniforms(slice(None), 4)
        assert drawn[0].tolist() == np.random.RandomState(9).random_sample(4).tolist()
        assert drawn[1].tolist() == other.random_sample(4).tolist()
