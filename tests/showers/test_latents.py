from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metacalo.normaliser.latents import Latents, structure_layers, structure_size

GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4))


def noise(n: int, grid: tuple[int, int, int], seed: int = 0) -> Latents:
    return Latents.noise(n, grid, torch.Generator().manual_seed(seed))


@given(st.integers(0, 3), GRIDS)
def test_flat_round_trip(n: int, grid: tuple[int, int, int]) -> None:
    n_r, n_phi, n_z = grid
    latents = noise(n, grid)
    flat = latents.flat()
    assert flat.shape == (n, structure_size(grid) + n_r * n_phi * n_z)
    again = Latents.from_flat(flat, grid)
    assert again.grid == latents.grid == grid
    for mine, theirs in zip(again.components(), latents.components(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_row_holds_the_total_the_layers_the_rings_the_hits_and_the_cells() -> None:
    flat = torch.arange(1 + 3 + 6 + 6 + 24, dtype=torch.float32)[None]
    latents = Latents.from_flat(flat, (2, 4, 3))
    assert latents.total.tolist() == [0]
    assert latents.layers.tolist() == [[1, 2, 3]]
    assert latents.rings.tolist() == [[[4, 5, 6], [7, 8, 9]]]
    assert latents.hits.tolist() == [[[10, 11, 12], [13, 14, 15]]]
    assert latents.cells[0, 1, 2].tolist() == [16 + 12 + 6, 16 + 12 + 7, 16 + 12 + 8]
    assert torch.equal(latents.structure(), flat[:, : structure_size((2, 4, 3))])


def test_each_structural_latent_knows_its_layer() -> None:
    layers = structure_layers((2, 4, 3))
    assert len(layers) == structure_size((2, 4, 3))
    latents = Latents.from_flat(torch.cat([layers, torch.zeros(24)])[None], (2, 4, 3))
    assert latents.total == -1
    assert latents.layers.tolist() == [[0, 1, 2]]
    for part in (latents.rings, latents.hits):
        assert part.tolist() == [[[0, 1, 2], [0, 1, 2]]]


def test_another_structure_with_the_same_cells() -> None:
    latents, other = noise(3, (2, 4, 3)), noise(3, (2, 4, 3), seed=1)
    changed = latents.with_structure(other.structure())
    assert torch.equal(changed.structure(), other.structure())
    assert torch.equal(changed.cells, latents.cells)


def test_functions_of_each_part_and_of_pairs() -> None:
    a, b = noise(2, (2, 4, 3)), noise(2, (2, 4, 3), seed=1)
    assert torch.equal(a.map(torch.neg).flat(), -a.flat())
    assert torch.equal(a.combine(b, torch.sub).flat(), a.flat() - b.flat())
    sums = a.combine(b, lambda x, y: (x * y).sum())
    torch.testing.assert_close(sum(sums.components()), (a.flat() * b.flat()).sum())
    assert torch.equal(a.to("cpu").flat(), a.flat())


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([3, 0, 3]), torch.tensor([True, False, False, True])])
def test_rows(rows: slice | torch.Tensor) -> None:
    latents = noise(4, (2, 4, 3))
    chosen = latents[rows]
    assert torch.equal(chosen.flat(), latents.flat()[rows])
    assert len(chosen) == len(latents.flat()[rows])


def test_noise_is_standard_normal_and_repeats_with_the_seed() -> None:
    values = noise(50, (4, 5, 6)).flat()
    assert stats.kstest(values.flatten().double().numpy(), stats.norm.cdf).pvalue > 1e-3
    assert torch.equal(values, noise(50, (4, 5, 6)).flat())
    assert not torch.equal(values, noise(50, (4, 5, 6), seed=1).flat())
