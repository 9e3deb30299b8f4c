from __future__ import annotations

import numpy as np
import pytest
import torch

from metacalo.normaliser.copula import Components, Copula
from metacalo.normaliser.energy_dependence import ENERGY_KNOTS
from metacalo.normaliser.latents import Latents, structure_size
from metacalo.normaliser.longitudinal import Longitudinal, fit_longitudinal
from tests.small import draw_copula, draw_longitudinal, seeded

GRID = (2, 4, 5)
N_FEW, SIZE = 1 + GRID[2], structure_size(GRID)
N_KNOTS = len(ENERGY_KNOTS)


def log_energies(n: int, seed: int = 9) -> torch.Tensor:
    """Spread evenly over the knots, and a little beyond."""
    return torch.empty(n).uniform_(np.log(0.7e3), np.log(1.4e5), generator=seeded(seed))


def coloured(n: int, x: torch.Tensor, copula: Copula, seed: int = 1) -> torch.Tensor:
    """Structure with the correlations of a copula."""
    return copula.inverse(Latents.noise(n, GRID, seeded(seed)), x).structure()


def assert_are_correlations(matrices: torch.Tensor) -> None:
    torch.testing.assert_close(matrices.diagonal(dim1=1, dim2=2), torch.ones(matrices.shape[:2]))
    torch.testing.assert_close(matrices, matrices.mT)
    assert torch.linalg.eigvalsh(matrices.double()).min() > 1e-3
    assert torch.isfinite(torch.linalg.cholesky(matrices)).all()


# --- in place of the copula's ---


@pytest.mark.parametrize(("position", "knots"), [(0.0, (0, 0)), (2.0, (2, 2)), (1.5, (1, 2)), (9.0, (4, 4))])
def test_imposed_correlations_are_those_that_were_wanted(position: float, knots: tuple[int, int]) -> None:
    """At the knots, halfway between two, and beyond the last."""
    n, copula, one = 20_000, draw_copula(GRID), draw_longitudinal(GRID)
    step = ENERGY_KNOTS[1] - ENERGY_KNOTS[0]
    x = torch.full((n,), float(ENERGY_KNOTS[0] + step * position))
    before = coloured(n, x, copula)
    after = one.inverse(before, x, copula)
    expected = (one.correlation[knots[0]] + one.correlation[knots[1]]) / 2
    error = 5 * 2**0.5 / n**0.5
    torch.testing.assert_close(after[:, :N_FEW].T @ after[:, :N_FEW] / n, expected, atol=error, rtol=0)
    was = before[:, :N_FEW].T @ before[:, :N_FEW] / n
    assert (was - expected).abs().max() > 5 * error
    assert torch.equal(after[:, N_FEW:], before[:, N_FEW:])


def test_lifting_undoes_imposing() -> None:
    copula, one, x = draw_copula(GRID), draw_longitudinal(GRID), log_energies(500)
    structure = coloured(500, x, copula)
    for there, back in ((one.inverse, one.forward), (one.forward, one.inverse)):
        changed = there(structure, x, copula)
        assert not torch.allclose(changed, structure, atol=0.1)
        torch.testing.assert_close(back(changed, x, copula), structure, atol=1e-4, rtol=0)


def test_lifted_structure_is_white_after_the_copula() -> None:
    n, one = 20_000, draw_longitudinal(GRID)
    x = log_energies(n)
    few = (torch.linalg.cholesky(one.at(x)) @ torch.randn(n, N_FEW, 1, generator=seeded(2)))[..., 0]
    # a copula under which they depend on nothing else: the rest has no say in what is white
    plain = Copula(Components(torch.eye(SIZE)[:, :2], torch.full((9, 2), 0.7), torch.ones(SIZE)), ())
    lifted = one.forward(torch.cat([few, torch.zeros(n, SIZE - N_FEW)], dim=1), x, plain)
    white = plain.structure.forward(lifted, x)[:, :N_FEW]
    torch.testing.assert_close(white.T @ white / n, torch.eye(N_FEW), atol=5 * 2**0.5 / n**0.5, rtol=0)
    assert (few.T @ few / n - torch.eye(N_FEW)).abs().max() > 0.1


def test_values_that_do_not_depend_on_one_another() -> None:
    copula, x = draw_copula(GRID), log_energies(4)
    torch.testing.assert_close(Longitudinal.none(N_FEW).at(x), torch.eye(N_FEW).expand(4, -1, -1))
    assert Longitudinal.none(N_FEW).weight.tolist() == [0] * N_KNOTS
    structure = Longitudinal.none(N_FEW).inverse(coloured(4, x, copula), x, copula)
    assert torch.isfinite(structure).all()


# --- fitting ---


def test_known_correlations_are_fitted_at_each_energy() -> None:
    n, true, x = 40_000, draw_longitudinal(GRID), log_energies(40_000)
    few = (torch.linalg.cholesky(true.at(x)) @ torch.randn(n, N_FEW, 1, generator=seeded(2)))[..., 0]
    rest = torch.randn(n, 3, generator=seeded(3))
    fitted = fit_longitudinal(torch.cat([few, rest], dim=1), x, N_FEW)
    assert_are_correlations(fitted.correlation)
    assert float(fitted.weight.sum()) == pytest.approx(n, rel=1e-4)
    # a knot sees the matrices around it: a sixth of what is seen at the inner ones is their neighbours'
    hat = 1 / 6
    c = true.correlation
    seen = torch.stack([(1 - 2 * hat) * c[k] + hat * (c[k - 1] + c[k + 1]) for k in range(1, N_KNOTS - 1)])
    torch.testing.assert_close(fitted.correlation[1:-1], seen, atol=5 * 2**0.5 / (n / 6) ** 0.5, rtol=0)
    for knot in (0, 4):
        others = [float((fitted.correlation[knot] - c[k]).norm()) for k in range(N_KNOTS)]
        assert np.argmin(others) == knot


def test_knots_without_showers_have_no_correlations() -> None:
    x = torch.full((500,), float(ENERGY_KNOTS[1]))
    value = torch.randn(500, 1, generator=seeded())
    fitted = fit_longitudinal(value.expand(-1, N_FEW), x, N_FEW)
    assert fitted.weight.tolist() == pytest.approx([0, 500, 0, 0, 0], abs=1e-2)
    assert torch.equal(fitted.correlation[3], torch.eye(N_FEW))
    assert_are_correlations(fitted.correlation)  # though all values are the same
    assert (fitted.correlation[1] > 0.95).all()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_handful_of_showers_gives_correlations(n: int) -> None:
    fitted = fit_longitudinal(torch.randn(n, SIZE, generator=seeded()), torch.full((n,), 9.0), N_FEW)
    assert_are_correlations(fitted.correlation)


def test_shrinking_averages_by_the_number_of_showers() -> None:
    mine, prior = draw_longitudinal(GRID, 0), draw_longitudinal(GRID, 1)
    mine = Longitudinal(mine.correlation, torch.tensor([0.0, 100, 300, 1e9, 700]))
    shrunk = mine.shrunk_towards(prior, 100.0)
    share = torch.tensor([0, 0.5, 0.75, 1, 0.875])[:, None, None]
    expected = share * mine.correlation + (1 - share) * prior.correlation
    torch.testing.assert_close(shrunk.correlation, expected, atol=1e-5, rtol=0)
    assert torch.equal(shrunk.weight, mine.weight)


# --- bookkeeping ---


def test_columns_and_tensors_of_correlations() -> None:
    one = draw_longitudinal(GRID)
    assert one.columns().shape == (N_FEW * (N_FEW - 1) // 2, N_KNOTS, 1)
    for again in (Longitudinal.from_columns(one.columns(), one.weight), Longitudinal.from_tensors(one.tensors())):
        torch.testing.assert_close(again.correlation, one.correlation, atol=1e-6, rtol=0)
        assert torch.equal(again.weight, one.weight)


@pytest.mark.parametrize("size", [2, 3, 46])
@pytest.mark.parametrize("spread", [0.1, 0.6, 2.0])
def test_columns_that_no_correlations_can_have_give_near_ones_that_are(size: int, spread: float) -> None:
    """As regression may predict them: not positive definite, or even beyond 1."""
    columns = spread * torch.randn(size * (size - 1) // 2, N_KNOTS, 1, generator=seeded())
    one = Longitudinal.from_columns(columns, torch.zeros(N_KNOTS))
    assert one.correlation.shape == (N_KNOTS, size, size)
    assert_are_correlations(one.correlation)
    assert (one.correlation.abs() <= 1 + 1e-6).all()
    likeness = np.corrcoef(one.columns().flatten(), columns.flatten())[0, 1]
    assert likeness > 0.5


def test_what_is_nearly_a_correlation_matrix_hardly_changes() -> None:
    one = draw_longitudinal(GRID)
    torch.testing.assert_close(
        Longitudinal.from_columns(one.columns() + 1e-3, one.weight).columns(), one.columns() + 1e-3, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("value", [2.0, float("nan")])
def test_matrices_that_are_no_correlations_are_not_read(value: float) -> None:
    tensors = Longitudinal.none(3).tensors()
    tensors["correlation"][1, 0, 1] = tensors["correlation"][1, 1, 0] = value
    for wrong in (tensors["correlation"], torch.ones(5, 3, 2), torch.ones(3)):
        with pytest.raises(ValueError, match=r"^longitudinal\.correlation holds no positive definite matrices$"):
            Longitudinal.from_tensors(tensors | {"correlation": wrong})
