from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from metacalo.errors import ConfigError
from metacalo.models.patches import COMPONENTS, Patching
from metacalo.normaliser.latents import Latents
from tests.small import seeded

sizes = st.integers(1, 4)
all_parts = st.just(COMPONENTS)


@st.composite
def patchings(draw: Callable, components: st.SearchStrategy = all_parts) -> Patching:
    patch = draw(st.tuples(sizes, sizes, sizes))
    counts = draw(st.tuples(sizes, sizes, sizes))
    r, phi, z = (cells * count for cells, count in zip(patch, counts, strict=True))
    return Patching((r, phi, z), patch, draw(components))


@given(patchings(st.sets(st.sampled_from(COMPONENTS), min_size=1)))
@example(Patching((9, 16, 45), (9, 16, 1)))
@example(Patching((9, 16, 45), (3, 2, 3), {"cells"}))
@example(Patching((18, 50, 45), (3, 5, 9)))
def test_latents_and_tokens_are_inverse(patching: Patching) -> None:
    latents, others = Latents.noise(2, patching.grid, seeded()), Latents.noise(2, patching.grid, seeded(1))
    tokens = patching.join(latents)
    assert tokens.shape == (2, patching.n_tokens, patching.token_size)
    scattered = patching.split(tokens, others)
    for component in COMPONENTS:
        if component in patching.components:
            torch.testing.assert_close(getattr(scattered, component), getattr(latents, component))
        else:
            assert getattr(scattered, component) is getattr(others, component)


def test_every_part_of_the_latents_can_be_carried() -> None:
    assert set(COMPONENTS) == {field.name for field in fields(Latents)}


@given(patchings())
def test_sizes_and_order_of_the_parts(patching: Patching) -> None:
    p_r, p_phi, p_z = patching.patch
    expected = {"cells": p_r * p_phi * p_z, "rings": p_r * p_z, "hits": p_r * p_z, "layers": p_z, "total": 1}
    assert list(patching.sizes.items()) == list(expected.items())
    few = Patching(patching.grid, patching.patch, {"total", "rings"})
    latents = Latents.noise(2, patching.grid, seeded())
    _, rings, _, _, total = patching.join(latents).split(list(expected.values()), dim=-1)
    assert torch.equal(few.join(latents), torch.cat([rings, total], dim=-1))


@given(patchings(st.just({"cells"})))
def test_tokens_come_with_z_slowest_then_r_then_phi(patching: Patching) -> None:
    r, phi, z = torch.meshgrid(*(torch.arange(cells) for cells in patching.grid), indexing="ij")
    p_r, p_phi, p_z = patching.patch
    n_r, n_phi, _ = patching.counts
    token = (z // p_z * n_r + r // p_r) * n_phi + phi // p_phi
    latents = replace(Latents.noise(1, patching.grid, seeded()), cells=token[None].float())
    expected = torch.arange(patching.n_tokens)[:, None].expand(-1, patching.token_size)
    assert torch.equal(patching.join(latents)[0], expected.float())


@given(patchings(st.just({"cells", "rings", "hits"})))
def test_a_token_carries_the_rings_and_hits_of_its_own_cells(patching: Patching) -> None:
    """Every cell holds the number of its ring: so must the ring's place in each token, whatever its patch in phi."""
    n_r, n_phi, n_z = patching.grid
    rings = torch.arange(float(n_r * n_z)).reshape(1, n_r, n_z)
    latents = Latents(torch.zeros(1), torch.zeros(1, n_z), rings, -rings, rings[:, :, None].expand(1, n_r, n_phi, n_z))
    p_r, p_phi, p_z = patching.patch
    cells, energies, hits = torch.split(patching.join(latents)[0], list(patching.sizes.values()), dim=-1)
    assert torch.equal(hits, -energies)
    of_cells = cells.reshape(-1, p_r, p_phi, p_z)
    assert torch.equal(of_cells, energies.reshape(-1, p_r, 1, p_z).expand_as(of_cells))


def test_a_token_carries_the_energies_of_its_own_layers() -> None:
    patching = Patching((2, 2, 6), (1, 2, 3))
    layers = torch.arange(6.0)
    latents = Latents(  # a cell and a ring hold their layer
        torch.tensor([7.0]), layers[None], layers.expand(1, 2, 6), layers.expand(1, 2, 6), layers.expand(1, 2, 2, 6)
    )
    for token in patching.join(latents)[0]:
        cells, rings, hits, energies, total = token.split([6, 3, 3, 3, 1])
        assert torch.equal(cells.reshape(2, 3)[0], energies)
        assert torch.equal(rings, energies)
        assert torch.equal(hits, energies)
        assert total == 7.0


def test_values_that_tokens_share_are_averaged() -> None:
    patching = Patching((2, 2, 2), (1, 1, 1))
    # cell, ring, hits, layer, total of two tokens a ring and four a layer, the layers one after the other
    tokens = torch.arange(8.0)[None, :, None].expand(1, 8, 5)
    scattered = patching.split(tokens, Latents.noise(1, (2, 2, 2), seeded()))
    assert scattered.cells.flatten().tolist() == [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]
    assert scattered.rings.tolist() == scattered.hits.tolist() == [[[0.5, 4.5], [2.5, 6.5]]]
    assert scattered.layers.tolist() == [[1.5, 5.5]]
    assert scattered.total.tolist() == [3.5]


@pytest.mark.parametrize(
    ("patch", "axis"), [((2, 16, 1), "r"), ((9, 3, 1), "phi"), ((9, 16, 2), "z"), ((0, 16, 1), "r"), ((-9, 16, 1), "r")]
)
def test_a_patch_that_does_not_divide_the_grid(patch: tuple[int, int, int], axis: str) -> None:
    with pytest.raises(ConfigError, match=rf"along {axis} does not divide the \d+ cells of the grid"):
        Patching((9, 16, 45), patch)
