"""An exported file makes empty showers of energies and angles that cannot be, and leaves the others as they are."""

from __future__ import annotations

import math
import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from metacalo.export import ExportSettings, export
from metacalo.showers import resolve_task

USUAL = [(10.0, 1.57, 0.0), (20.0, 1.2, 1.0), (1e-3, 1.57, 0.0)]
WRONG = [
    *((energy, 1.57, 0.0) for energy in (0.0, -0.0, -5.0, math.nan, math.inf, -math.inf, 1e-40, 3.4e38)),
    *((10.0, theta, 0.0) for theta in (math.nan, math.inf, -math.inf)),
    (10.0, 1.57, math.nan),
]
ROWS = [USUAL[0], *WRONG[:6], USUAL[1], *WRONG[6:], USUAL[2]]
GOOD = [0, 7, len(ROWS) - 1]


def runner(path, format):  # noqa: A002
    """Showers in MeV of rows of energy in GeV, theta and phi, with the rows' own seeds."""
    names = ("energy", "theta", "phi", "seed")
    if format == "onnx":
        session = onnxruntime.InferenceSession(str(path))
        return lambda *given: session.run(None, dict(zip(names, given, strict=True)))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(path))
    return lambda *given: module(*map(torch.from_numpy, given)).numpy()


@pytest.mark.parametrize(
    ("sampling", "format"),
    [
        ({"generator": "ar"}, "onnx"),
        ({"generator": "diffusion", "sampler": "euler", "steps": 1}, "onnx"),
        ({"generator": "diffusion", "sampler": "euler", "steps": 1}, "torchscript"),
    ],
)
def test_wrong_values_are_empty_showers(sampling, format, tmp_path):  # noqa: A002
    settings = ExportSettings(format=format, interface="named", **sampling)
    path = export("base-no-pblar", tmp_path / "model", settings, detector=resolve_task("pblar").detector)
    run = runner(path, format)

    def made(rows):
        energy, theta, phi = np.array([ROWS[row] for row in rows], np.float32).T
        return run(energy.copy(), theta.copy(), phi.copy(), np.array(rows))

    together, good = made(range(len(ROWS))), made(GOOD)
    assert together.shape == (len(ROWS), 9, 16, 45)
    assert not np.delete(together, GOOD, axis=0).any()
    total = good.sum((1, 2, 3))
    assert (total[:2] > 5e3).all()
    np.testing.assert_allclose(together[GOOD].sum((1, 2, 3)), total, rtol=1e-4)
    assert not made([1]).any()
