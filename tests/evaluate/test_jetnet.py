"""FPD and KPD against the JetNet library itself (`pip install --no-deps jetnet`; `make test` does)."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType

import numpy as np
import pytest

from metacalo.evaluate.jetnet import jetnet_fpd, jetnet_kpd
from metacalo.evaluate.observables import observables


@pytest.fixture(scope="module")
def library():
    """JetNet's own metrics; what they import for jets alone (EnergyFlow, numba's compiler, data sets) is left out."""
    try:
        source = distribution("jetnet").locate_file("jetnet/evaluation/gen_metrics.py")
    except PackageNotFoundError:
        pytest.skip("jetnet is not installed (pip install --no-deps jetnet)")

    def bare(name: str, **content: object) -> ModuleType:
        module = ModuleType(name)
        vars(module).update(content)
        return module

    def njit(function=None, **_):
        return function or (lambda undecorated: undecorated)

    stand_ins = [
        bare("energyflow"),
        bare("energyflow.emd", emds=None),
        bare("numba", njit=njit, prange=range, set_num_threads=None),
        bare("jetnet", utils=None),
        bare("jetnet.datasets", JetNet=None),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for module in stand_ins:
            patch.setitem(sys.modules, module.__name__, module)
        spec = importlib.util.spec_from_file_location("jetnet_gen_metrics", source)
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        # scipy took the option that this call has away
        plain = module.linalg.sqrtm
        patch.setattr(
            module, "linalg", bare("linalg", sqrtm=lambda m, disp=True: plain(m) if disp else (plain(m), None))
        )
        yield module


@pytest.fixture(scope="module")
def features(halves, too_much):
    return [observables(sample.showers, sample.energy).features()[0][:, :20] for sample in (*halves, too_much)]


@pytest.mark.filterwarnings("ignore:Recommended number of samples", "ignore:Large imaginary components")
@pytest.mark.parametrize("other", [1, 2])
def test_fpd_is_that_of_jetnet(library, features, other):
    message = {"min_samples": 300, "max_samples": 900}
    expected = library.fpd(features[0], features[other], num_batches=3, num_points=4, **message)
    found = jetnet_fpd(features[0], features[other], batches=3, points=4, **message)
    assert found.value > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("other", [1, 2])
def test_kpd_is_that_of_jetnet(library, features, other):
    for size in (40, 700):  # smaller than either sample, where pairs are counted for each batch, and larger
        expected = library.kpd(features[0], features[other], batch_size=size)
        found = jetnet_kpd(features[0], features[other], batch_size=size)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_fpd_tells_every_batch_and_knows_constant_features():
    rows = np.random.default_rng(0).normal(size=(2, 50, 3))
    rows[..., 1] = 0
    message = []
    found = jetnet_fpd(*rows, min_samples=60, max_samples=90, batches=2, points=3, on_batch=lambda: message.append(1))
    assert len(message) == 6
    assert np.isfinite(found).all()


def test_seeds_are_those_of_the_call(features):
    first, second = features[:2]
    message = {"min_samples": 100, "max_samples": 200, "batches": 2, "points": 3}
    assert jetnet_fpd(first, second, **message) == jetnet_fpd(first, second, **message)
    assert jetnet_fpd(first, second, **message) != jetnet_fpd(first, second, seed=1, **message)
