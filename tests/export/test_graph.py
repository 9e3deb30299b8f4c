"""The parts of the graph against those of the model, and the whole against `ShowerModel`."""

from __future__ import annotations

import pytest
import torch

from metacalo.errors import MetacaloError
from metacalo.export.correlations import LARGEST_ERROR, TabulatedLongitudinal
from metacalo.export.dense_spectrum import DenseSpectrum
from metacalo.export.graph import ShowerGraph, merged
from metacalo.models.adapters import LowRankLinear
from metacalo.normaliser.latents import Latents
from metacalo.normaliser.spectrum import LOG_CELL_KNOTS, Spectrum
from tests.export.conftest import conditions
from tests.small import seeded, small_autoregressive, small_diffusion

GENERATORS = ("ar", "diffusion")


def test_correlations_of_layers_are_tabulated_between_and_beyond_the_knots(model):
    normaliser = model.normaliser
    table = TabulatedLongitudinal.of(normaliser.longitudinal, normaliser.copula)
    structure = torch.randn(200, 856, generator=seeded())
    x = torch.linspace(6.0, 12.5, 200)
    expected = normaliser.longitudinal.inverse(structure, x, normaliser.copula)
    torch.testing.assert_close(
        table.inverse(structure, x, normaliser.copula), expected, atol=5e-5, rtol=0
    )  # of sums of 46
    assert LARGEST_ERROR <= 1e-5


def test_correlations_that_cannot_be_tabulated_are_reported(model, monkeypatch):
    monkeypatch.setattr("metacalo.export.correlations.LARGEST_ERROR", 0.0)
    with pytest.raises(MetacaloError, match="cannot be tabulated"):
        TabulatedLongitudinal.of(model.normaliser.longitudinal, model.normaliser.copula)


@pytest.mark.parametrize("steepness", [0.0, 0.1, 1.0])
def test_the_dense_spectrum_sharpens_as_the_sparse_one(steepness):
    offset = steepness * torch.randn(3, len(LOG_CELL_KNOTS), generator=seeded())
    spectrum = Spectrum(offset, torch.ones(3))
    cells = torch.exp(3 * torch.randn(40, 3, 8, 5, generator=seeded(1)))
    cells[torch.rand(cells.shape, generator=seeded(2)) < 0.6] = 0
    expected, found = spectrum.inverse(cells), DenseSpectrum.of(spectrum).inverse(cells)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.sum(2), cells.sum(2), rtol=1e-5, atol=1e-6)
    assert torch.equal(found > 0, cells > 0)


@pytest.mark.parametrize("make", [small_autoregressive, small_diffusion])
def test_merging_takes_the_adapters_away_and_changes_nothing(make):
    generator = make().eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(".up"):
                parameter += 0.1 * torch.randn(parameter.shape, generator=seeded())
    one = merged(generator)
    layers = [module for module in one.modules() if isinstance(module, LowRankLinear)]
    assert layers
    assert not any(module.rank or hasattr(module, "up") for module in layers)
    assert any(module.rank for module in generator.modules() if isinstance(module, LowRankLinear))
    given = torch.randn(4, 5, generator=seeded(3))
    found, expected = (each.sample(given, seeded(4)) for each in (one, generator))
    torch.testing.assert_close(found.structure(), expected.structure(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", GENERATORS)
def test_the_graph_makes_the_showers_of_the_model(name, model, graphs):
    n, graph, draw = 20, graphs[name], seeded(4)
    energy, theta, phi = conditions(n)
    uniform = None
    if name == "ar":  # in the order in which the generator draws
        length = graph.generator.prior.length
        uniform = torch.cat([torch.rand(length, n, generator=draw).T, torch.rand(n, 46, generator=draw)], dim=1)
    normal = Latents.noise(n, graph.grid, draw).flat()
    found = graph(1e3 * energy, theta, phi, normal, uniform)
    message = (values.double().numpy() for values in (1e3 * energy, theta, phi))
    expected = torch.from_numpy(model.sampler(name, autocast=False)(*message, seeded(4)))
    difference = (found - expected).abs().sum((1, 2, 3)) / expected.sum((1, 2, 3))
    assert float(difference.quantile(0.95)) < 1e-4  # a code or a count at the edge of rounding may turn
    assert not ShowerGraph(model, name).generator.training
