"""Generators small enough to be trained in a test, and latents to feed them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import Batch, ShowerGenerator
from metacalo.generators.diffusion import Diffusion, DiffusionSettings
from metacalo.models.dit import DiTSettings
from metacalo.models.prior import PriorSettings
from metacalo.models.quantizer import QuantizerSettings
from metacalo.models.vqvae import VQVAE, VQVAESettings
from metacalo.normaliser.copula import COMPONENT_KNOTS, Components, Copula
from metacalo.normaliser.energy_dependence import ENERGY_KNOTS
from metacalo.normaliser.latents import Latents, structure_size
from metacalo.normaliser.longitudinal import Longitudinal

GRID = (3, 4, 6)
PATCH = (3, 2, 2)
CONDITIONS = 5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_latents(n: int, seed: int = 0, grid: tuple[int, int, int] = GRID) -> Latents:
    """Standard normal latents in which the cells of a layer share half of their variance."""
    generator = seeded(seed)
    independent = Latents.noise(n, grid, generator)
    shared = torch.randn(n, 1, 1, grid[2], generator=generator)
    return replace(independent, cells=(independent.cells + shared) / 2**0.5)


def draw_copula(grid: tuple[int, int, int] = GRID) -> Copula:
    """Correlations at random: four components of the structure and of two modes, with variances of 0.4 to 2.7."""

    def components(size: int, seed: int) -> Components:
        vectors = torch.linalg.qr(torch.randn(size, 4, generator=seeded(seed)))[0]
        log_variance = 2 * torch.rand(len(COMPONENT_KNOTS), 4, generator=seeded(seed)) - 1
        return Components(vectors, log_variance, scale=torch.linspace(0.8, 1.2, size))

    n_r, _, n_z = grid
    return Copula(components(structure_size(grid), 1), (components(n_r * n_z, 2), components(n_r * n_z, 3)))


def draw_longitudinal(grid: tuple[int, int, int] = GRID, seed: int = 0) -> Longitudinal:
    """Correlations of total and layers at random, others at each energy: half by two factors, half none."""
    loadings = torch.randn(len(ENERGY_KNOTS), 1 + grid[2], 2, generator=seeded(seed))
    loadings = loadings / loadings.norm(dim=2, keepdim=True) / 2**0.5
    correlation = loadings @ loadings.mT
    correlation.diagonal(dim1=1, dim2=2)[:] = 1
    return Longitudinal(correlation, torch.full((len(ENERGY_KNOTS),), 100.0))


def draw_batch(n: int, seed: int = 0, grid: tuple[int, int, int] = GRID, conditions: int = CONDITIONS) -> Batch:
    return Batch(draw_latents(n, seed, grid), torch.randn(n, conditions, generator=seeded(seed + 1000)))


def small_tokenizer(*, depth: int = 2, size: int = 8, **settings: Any) -> VQVAE:
    """A tokenizer whose codebooks have been filled by one training pass."""
    torch.manual_seed(1)
    quantizer = QuantizerSettings(size=size, depth=depth, code_width=4)
    sizes = {"patch": PATCH, "width": 12, "blocks": 1, "heads": 2, "quantizer": quantizer, **settings}
    tokenizer = VQVAE(VQVAESettings(**sizes), GRID)
    tokenizer.train().loss(draw_latents(64, seed=7))
    return tokenizer.eval()


def small_autoregressive(**prior: Any) -> Autoregressive:
    settings = PriorSettings(**{"width": 24, "blocks": 2, "heads": 2, "rank": 1, "embedding": 4, "bins": 8, **prior})
    tokenizer = small_tokenizer()
    torch.manual_seed(2)
    return Autoregressive(tokenizer, settings, CONDITIONS)


def small_diffusion(*, dit: dict[str, Any] | None = None, **settings: Any) -> Diffusion:
    sizes = {"patch": PATCH, "width": 24, "blocks": 2, "heads": 2, "rank": 1, "embedding": 4, **(dit or {})}
    if settings.get("prediction") == "noise":  # which no other sampler can use
        settings.setdefault("sampler", "ddpm")
    torch.manual_seed(3)
    return Diffusion(DiffusionSettings(dit=DiTSettings(**sizes), **settings), GRID, CONDITIONS)


SMALL = {"ar": small_autoregressive, "diffusion": small_diffusion}


def disturb(model: torch.nn.Module, seed: int = 5, by: float = 0.2) -> None:
    """Moves all trainable parameters off their (partly zero) initial values."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += by * torch.randn(parameter.shape, generator=generator).to(parameter)


def take_steps(model: ShowerGenerator, batch: Batch, steps: int, rate: float = 3e-3) -> list[float]:
    """Trains on one batch with noise that is the same in every step, and returns the losses."""
    model.train()
    optimizer = torch.optim.Adam(model.trainable().values(), lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(batch, seeded(11))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses
