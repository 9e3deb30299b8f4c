"""Exported files against PyTorch on the same noise, as programs run them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from metacalo.export.interfaces import Named, Par04
from metacalo.normaliser.condition_vector import encode_conditions
from metacalo.normaliser.latents import Latents
from tests.export.conftest import SHORT, conditions, zero_shot_model

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")

GENERATORS = ("ar", "diffusion")
LEVELS = onnxruntime.GraphOptimizationLevel
CELLS = 9 * 16 * 45

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # which LibTorch goes on reading


def session(path, level=LEVELS.ORT_ENABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads = level, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_named(path, energy, theta, phi, seed, **options):
    given = {"energy": energy, "theta": theta, "phi": phi, "seed": seed}
    (showers,) = session(path, **options).run(None, {name: values.numpy() for name, values in given.items()})
    return showers


def par04(energy, theta, phi):
    """What Par04 gives its model: GeV, phi before theta, and the place of a new detector."""
    n = len(energy)
    return torch.stack([energy, phi, theta, *torch.zeros(4, n), torch.ones(n)], dim=1)


@pytest.fixture(scope="session")
def expected(graphs, model):
    """Showers of the model itself, of given noise."""

    def of(name, energy, theta, phi, normal, uniform):
        mev, generator, noise = 1e3 * energy, model.generator(name), Latents.from_flat(normal, graphs[name].grid)
        message = encode_conditions(*(x.double().numpy() for x in (mev, theta, phi)), model.detector.descriptors())
        with torch.no_grad():
            if name == "diffusion":
                latents = generator.sample_from_noise(noise, message)
            else:
                length = generator.prior.length
                codes = generator.prior.sample_from_uniform(uniform[:, :length], message, generator.sampling)
                latents = generator.placed(codes, uniform[:, length:], noise)
            return model.normaliser.inverse(latents, mev, theta).numpy()

    return of


def assert_same_showers(found, expected):
    """To 1e-4 of each shower's energy.

    What is decided by a comparison (a code, a count of hits, a cell at the threshold) may turn where both sides are
    equal to rounding, and one ring or one shower with it: at most one shower in twenty may differ by more.
    """
    assert found.shape == expected.shape
    difference = np.abs(found - expected).sum((1, 2, 3)) / expected.sum((1, 2, 3))
    assert np.quantile(difference, 0.95, method="lower") < 1e-4
    assert np.mean((found > 0) != (expected > 0)) < 1e-3


@pytest.mark.parametrize("level", [LEVELS.ORT_ENABLE_ALL, LEVELS.ORT_DISABLE_ALL], ids=["optimised", "as it is"])
@pytest.mark.parametrize("name", GENERATORS)
def test_onnx_gives_the_showers_of_pytorch(name, level, exported, expected, graphs):
    message, seed = conditions(20), torch.arange(20) + 2**40
    found = run_named(exported(generator=name, interface="named"), *message, seed, level=level)
    assert_same_showers(found, expected(name, *message, *Named(graphs[name]).noise(seed)))


@pytest.mark.parametrize("name", GENERATORS)
def test_torchscript_gives_the_showers_of_pytorch(name, exported, expected, graphs):
    message, module = conditions(20), torch.jit.load(str(exported(generator=name, format="torchscript")))
    torch.manual_seed(4)
    found = 1e3 * module(par04(*message)).reshape(20, 9, 16, 45)
    torch.manual_seed(4)
    assert_same_showers(found.numpy(), expected(name, *message, *Par04(graphs[name]).noise(message[0])))


@pytest.mark.parametrize("name", GENERATORS)
def test_an_onnx_file_is_valid_and_holds_standard_operators_of_its_opset(name, exported):
    path = exported(generator=name, interface="named")
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert path.stat().st_size < 16e6


@pytest.mark.parametrize("name", GENERATORS)
def test_a_seed_repeats_a_shower_in_any_batch(name, exported):
    path, (energy, theta, phi), seed = exported(generator=name, interface="named"), conditions(3), torch.arange(3)
    together = run_named(path, energy, theta, phi, seed)
    alone = run_named(path, energy[1:2], theta[1:2], phi[1:2], seed[1:2])
    other = run_named(path, energy, theta, phi, seed + 3)
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-3, atol=1e-3)
    assert not np.isin(other[other > 0], together[together > 0]).all()
    assert np.abs(other - together).sum() > 0.1 * together.sum()


def test_par04_gives_eight_numbers_and_gets_all_cells_in_gev(exported):
    path = exported(**SHORT)
    assert [(opset.domain, opset.version) for opset in onnx.load(path).opset_import] == [("", 20)]
    run = session(path, level=LEVELS.ORT_DISABLE_ALL)
    assert [(value.name, value.shape, value.type) for value in run.get_inputs()] == [
        ("conditions", ["n", 8], "tensor(float)")
    ]
    assert [(value.name, value.shape, value.type) for value in run.get_outputs()] == [
        ("energies", ["n", CELLS], "tensor(float)")
    ]
    one = par04(*(torch.tensor([value]) for value in (50.0, 1.57, 0.3)))
    first, second = (run.run(None, {"conditions": one.numpy()})[0] for _ in range(2))
    assert first.shape == (1, CELLS)
    assert first.sum() == pytest.approx(50, rel=0.2)
    assert not np.array_equal(first, second), "noise is drawn anew"
    assert run.run(None, {"conditions": one.repeat(3, 1).numpy()})[0].shape == (3, CELLS)
    again = session(path).run(None, {"conditions": one.numpy()})[0]
    np.testing.assert_allclose(again, first, rtol=1e-3, atol=1e-6)  # the seed is that of a session


def test_par04_in_libtorch_gives_them_without_an_axis_of_showers(exported):
    module = torch.jit.load(str(exported(generator="diffusion", format="torchscript")))
    one = par04(*(torch.tensor([value]) for value in (50.0, 1.57, 0.3)))
    torch.manual_seed(1)
    first, second = module(one[0]), module(one)
    assert first.shape == second.shape == (1, CELLS)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(module(one[0]), first)


def test_the_same_cells_in_the_same_order_and_as_often(exported):
    """200 showers of 20 GeV of either: mean profiles along r and z, response and hits are one distribution."""
    n = 200
    energy = torch.full((n,), 20.0)
    given = par04(energy, torch.full((n,), 1.3), torch.full((n,), 0.4))
    file, model = session(exported(**SHORT)), zero_shot_model()
    model.generator("diffusion").choose("euler", 1)
    found = 1e3 * file.run(None, {"conditions": given.numpy()})[0].reshape(n, 9, 16, 45)
    message = (1e3 * energy.double().numpy(), np.full(n, 1.3), np.full(n, 0.4))
    own = next(model.generate("diffusion", *message, batch_size=n, autocast=False)).showers
    for observe in (lambda x: x.sum((1, 2, 3)), lambda x: (x > 0).sum((1, 2, 3)), lambda x: x.max((1, 2, 3))):
        assert stats.ks_2samp(observe(found), observe(own)).pvalue > 1e-3
    for axes in ((2, 3), (1, 2), (1, 3)):  # along r, z and phi
        profiles = [x.sum(axes, dtype=np.float64) for x in (found, own)]
        error = np.sqrt(sum(p.var(0) for p in profiles) / n)
        pull = (profiles[0].mean(0) - profiles[1].mean(0)) / error
        assert np.abs(pull).max() < 4.5
    threshold = model.normaliser.threshold
    assert found[found > 0].min() >= threshold * (1 - 2e-3)
