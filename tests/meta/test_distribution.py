"""Probabilities of tasks, windows of energy and angle, and the split into support and query."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metacalo.training_data.distribution import Window, draw_window, split_rows, task_probabilities
from tests.small import seeded

shares = st.floats(0, 1)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=9), st.floats(0, 2))
def test_probabilities_go_with_a_power_of_the_number_of_showers(showers: list[int], exponent: float) -> None:
    found = task_probabilities(showers, exponent)
    expected = np.array(showers, dtype=float) ** exponent
    np.testing.assert_allclose(found.numpy(), expected / expected.sum(), rtol=1e-12)


class TestSplit:
    @given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 20), st.integers(0, 5))
    def test_no_shower_is_on_both_sides(self, n: int, support: int, query: int, seed: int) -> None:
        rows = torch.arange(n) + 100
        first, second = (set(side.tolist()) for side in split_rows(rows, support, query, seeded(seed)))
        assert first | second <= set(rows.tolist())
        assert not first & second or n == 1
        if n >= support + query:
            assert (len(first), len(second)) == (support, query)

    def test_sizes_and_chance(self) -> None:
        generator = seeded()
        drawn = [split_rows(torch.arange(5), 4, 8, generator) for _ in range(400)]
        assert {(len(support), len(query)) for support, query in drawn} == {(4, 8)}
        counts = torch.bincount(torch.cat([query for _, query in drawn]), minlength=5) / 3200
        assert counts.numpy() == pytest.approx(0.2, abs=0.03)
        # two of the five are for the support, three for the query
        assert max(len(support.unique()) for support, _ in drawn) == 2
        assert max(len(query.unique()) for _, query in drawn) == 3


class TestWindow:
    energy = np.exp(np.linspace(7.0, 11.0, 201)).astype(np.float32)
    theta = np.full(201, 1.2, np.float32)

    @given(shares, st.floats(0.05, 1))
    def test_it_covers_its_share_of_the_logarithm_of_the_energy(self, place: float, width: float) -> None:
        rows = Window(width, (place, 0.5)).rows(self.energy, self.theta, at_least=1).numpy()
        low = place * (1 - width)
        assert (np.diff(rows) == 1).all()
        assert rows[0] / 200 == pytest.approx(low, abs=0.006)
        assert rows[-1] / 200 == pytest.approx(low + width, abs=0.006)

    @given(shares)
    def test_a_shower_and_its_mirror_image_are_both_inside_or_outside(self, place: float) -> None:
        theta = np.linspace(0.9, np.pi - 0.9, 201)
        rows = Window(0.3, (0.5, place)).rows(np.full(201, 1e4), theta, at_least=1)
        inside = np.isin(np.arange(201), rows.numpy())
        assert (inside != inside[::-1]).sum() <= 4  # rounding at the two ends of the window and of its image
        angle = np.abs(theta - np.pi / 2)
        assert np.ptp(angle[inside]) <= 0.3 * angle.max() + 1e-6
        assert inside.sum() == pytest.approx(0.3 * 201, abs=4)

    def test_it_is_widened_until_it_holds_enough(self) -> None:
        window = Window(0.1, (0.3, 0.5))
        assert len(window.rows(self.energy, self.theta, at_least=20)) == 20
        assert len(window.rows(self.energy, self.theta, at_least=21)) == pytest.approx(40, abs=1)
        assert len(window.rows(self.energy, self.theta, at_least=81)) == pytest.approx(160, abs=1)
        for at_least in (161, 201, 500):
            assert window.rows(self.energy, self.theta, at_least).tolist() == list(range(201))

    def test_energies_that_are_all_the_same(self) -> None:
        assert len(Window(0.1, (0.9, 0.1)).rows(np.full(9, 5e3), np.full(9, 1.5), at_least=9)) == 9

    def test_the_share_of_windows(self) -> None:
        generator = seeded()
        before = generator.get_state()
        assert draw_window(0.0, 0.5, generator) is None
        assert torch.equal(generator.get_state(), before)
        drawn = [draw_window(0.3, 0.5, generator) for _ in range(1000)]
        windows = [window for window in drawn if window is not None]
        assert len(windows) == pytest.approx(300, abs=60)
        assert {window.width for window in windows} == {0.5}
        places = np.array([window.places for window in windows])
        np.testing.assert_allclose(places.mean(0), 0.5, atol=0.06)
        assert abs(np.corrcoef(places.T)[0, 1]) < 0.2
