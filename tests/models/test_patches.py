from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from metacalo.errors import ConfigError
from metacalo.models.patches import Patching
from metacalo.showers.normalise import Latents
from tests.small import seeded

sizes = st.integers(1, 4)


@st.composite
def patchings(draw: Callable) -> Patching:
    patch = draw(st.tuples(sizes, sizes, sizes))
    counts = draw(st.tuples(sizes, sizes, sizes))
    r, phi, z = (cells * count for cells, count in zip(patch, counts, strict=True))
    return Patching((r, phi, z), patch)


def random_latents(patching: Patching, n: int = 2) -> Latents:
    generator = seeded()
    return Latents(
        torch.randn(n, generator=generator),
        torch.randn(n, patching.grid[2], generator=generator),
        torch.randn(n, *patching.grid, generator=generator),
    )


@given(patchings())
@example(Patching((9, 16, 45), (9, 16, 1)))
@example(Patching((9, 16, 45), (3, 2, 3)))
@example(Patching((18, 50, 45), (3, 5, 9)))
def test_cells_and_tokens_are_inverse(patching: Patching) -> None:
    latents = random_latents(patching)
    tokens = patching.split_cells(latents.voxels)
    assert tokens.shape == (2, patching.n_tokens, patching.n_cells)
    assert patching.n_tokens * patching.n_cells == latents.voxels[0].numel()
    assert torch.equal(patching.merge_cells(tokens), latents.voxels)
    joined = patching.join(latents)
    assert joined.shape == (2, patching.n_tokens, patching.token_size)
    parted = patching.part(joined)
    assert torch.equal(parted.voxels, latents.voxels)
    torch.testing.assert_close(parted.layers, latents.layers)
    torch.testing.assert_close(parted.total, latents.total)


@given(patchings())
def test_tokens_come_with_z_slowest_then_r_then_phi(patching: Patching) -> None:
    r, phi, z = torch.meshgrid(*(torch.arange(cells) for cells in patching.grid), indexing="ij")
    p_r, p_phi, p_z = patching.patch
    _, n_phi, _ = patching.counts
    n_r = patching.counts[0]
    token = (z // p_z * n_r + r // p_r) * n_phi + phi // p_phi
    expected = torch.arange(patching.n_tokens)[:, None].expand(-1, patching.n_cells)
    assert torch.equal(patching.split_cells(token[None].float())[0], expected.float())


def test_a_token_carries_the_energies_of_its_own_layers() -> None:
    patching = Patching((2, 2, 6), (1, 2, 3))
    latents = Latents(
        torch.tensor([7.0]), torch.arange(6.0)[None], torch.arange(6.0).expand(1, 2, 2, 6)
    )  # a cell holds its layer
    for token in patching.join(latents)[0]:
        cells, layers, total = token.split([6, 3, 1])
        assert torch.equal(cells.reshape(2, 3)[0], layers)
        assert total == 7.0


def test_values_that_tokens_share_are_averaged() -> None:
    patching = Patching((2, 2, 2), (1, 1, 1))
    tokens = torch.zeros(1, 8, 3)
    tokens[0, :, 1] = torch.arange(8.0)  # four tokens a layer, the layers one after the other
    tokens[0, :, 2] = torch.arange(8.0)
    parted = patching.part(tokens)
    assert parted.layers.tolist() == [[1.5, 5.5]]
    assert parted.total.tolist() == [3.5]


@pytest.mark.parametrize(
    ("patch", "axis"), [((2, 16, 1), "r"), ((9, 3, 1), "phi"), ((9, 16, 2), "z"), ((0, 16, 1), "r"), ((-9, 16, 1), "r")]
)
def test_a_patch_that_does_not_divide_the_grid(patch: tuple[int, int, int], axis: str) -> None:
    with pytest.raises(ConfigError, match=rf"along {axis} does not divide the \d+ cells of the grid"):
        Patching((9, 16, 45), patch)
