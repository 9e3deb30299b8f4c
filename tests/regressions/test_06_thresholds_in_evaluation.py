"""Noise below a threshold decides no figure: CaloChallenge mode cuts first, `evaluate` warns and can cut alike."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from metacalo.cli import app
from metacalo.errors import ConfigError
from metacalo.evaluate import EvaluateSettings, compare
from metacalo.evaluate.calochallenge import CHALLENGE_THRESHOLD
from metacalo.evaluate.jetnet import jetnet_fpd, jetnet_kpd
from metacalo.evaluate.metrics import Estimate
from metacalo.evaluate.reference import features_of_challenge
from metacalo.showers import write_showers
from tests.samples import shipped

FAST = EvaluateSettings(classifiers=False, splits=1, pages=False)


@pytest.fixture(scope="module")
def samples():
    """Two times 150 showers of SiW, whose voxels under 15.15 keV are zero."""
    return shipped("siw", slice(0, 150)), shipped("siw", slice(150, 300))


@pytest.fixture(scope="module")
def noisy(samples):
    """The first sample with 1 to 15 keV in a fifth of its empty cells."""
    rng = np.random.default_rng(7)
    showers = samples[0].showers
    noise = np.where(rng.random(showers.shape) < 0.2, rng.uniform(0.001, 0.015, showers.shape), 0)
    return replace(samples[0], showers=np.where(showers == 0, noise, showers).astype(np.float32))


def test_noise_below_the_threshold_of_the_challenge_is_not_seen_in_its_mode(samples, noisy, monkeypatch):
    message = {}

    def fpd(*both, **batches):
        message.update(batches)
        return jetnet_fpd(*both, min_samples=100, max_samples=300, batches=1, points=3)

    def kpd(*both, **batches):
        message.update(batches)
        return jetnet_kpd(*both, batch_size=100, batches=3)

    monkeypatch.setattr("metacalo.evaluate.calochallenge.jetnet_fpd", fpd)
    monkeypatch.setattr("metacalo.evaluate.calochallenge.jetnet_kpd", kpd)
    np.testing.assert_array_equal(features_of_challenge(noisy), features_of_challenge(samples[0]))
    mode = FAST.model_copy(update={"calochallenge": True})
    found, clean = (compare(sample, samples[1], mode)["calochallenge"] for sample in (noisy, samples[0]))
    assert found == clean
    assert message == {"min_samples": 10_000, "batch_size": 10_000}
    assert found["features"] == 362
    assert found["threshold_mev"] == CHALLENGE_THRESHOLD == pytest.approx(0.015152, abs=1e-6)
    assert "CaloChallenge/homepage" in found["version"]
    assert "2a3dcf2" in found["version"]


def test_a_threshold_makes_both_samples_alike_before_anything_is_computed(samples, noisy):
    (warning,) = compare(noisy, samples[1], FAST)["warnings"]
    assert re.match(
        r"the smallest deposits are 0\.001 MeV generated and 0\.01[56]\d* MeV in the reference, and \d\d% of the hit "
        r"cells of the generated showers lie below the other's: .*; --threshold 0\.01[56]\d* \(MeV\) "
        r"cuts both samples alike",
        warning,
    )
    threshold = float(re.search(r"--threshold ([\d.]+)", warning)[1])
    settings = FAST.model_copy(update={"threshold": threshold})
    cut = compare(noisy, samples[1], settings)
    assert cut["warnings"] == []
    assert cut["threshold_mev"] == threshold
    assert cut == compare(samples[0], samples[1], settings)
    assert compare(samples[0], samples[1], FAST)["warnings"] == []
    (other,) = compare(samples[1], noisy, FAST)["warnings"]
    assert "hit cells of the reference lie below" in other


def test_raw_and_calibrated_deposits_are_reported_as_such_and_not_as_thresholds(samples):
    raw = replace(samples[0], showers=samples[0].showers * np.float32(0.05))
    (warning,) = compare(raw, samples[1], FAST)["warnings"]
    assert "raw deposits" in warning
    assert "--threshold" not in warning


@pytest.mark.usefixtures("few_figures", "no_pictures")
def test_the_command_cuts_and_records(samples, noisy, tmp_path):
    for name, sample in (("noisy", noisy), ("reference", samples[1])):
        write_showers(tmp_path / f"{name}.h5", sample)
    given = ["evaluate", "--generated", str(tmp_path / "noisy.h5"), "--reference", str(tmp_path / "reference.h5")]
    given += ["--no-classifiers", "--out", str(tmp_path / "out"), "--threshold", "0.01515"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "deposits below 0.01515 MeV are set to 0 in all samples" in " ".join(result.output.split())
    assert "--threshold" not in result.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["settings"]["threshold"] == 0.01515
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Deposits below 0.01515 MeV were set to 0 in all samples before anything was computed." in page
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="threshold"):
            EvaluateSettings.build({"threshold": wrong})


@pytest.mark.usefixtures("few_figures", "no_pictures")
def test_fpd_stands_beside_published_figures_with_their_factor_of_1000(samples, monkeypatch, tmp_path):
    # what the challenge's tables call "FPD x 10^3", and what the report showed without the factor
    monkeypatch.setattr("metacalo.evaluate.calochallenge.jetnet_fpd", lambda *_, **__: Estimate(0.0247, 0.0011))
    monkeypatch.setattr("metacalo.evaluate.calochallenge.jetnet_kpd", lambda *_, **__: Estimate(0.00005, 0.00001))
    for name, sample in zip(("generated", "reference"), samples, strict=True):
        write_showers(tmp_path / f"{name}.h5", sample)
    given = ["evaluate", "--generated", str(tmp_path / "generated.h5"), "--reference", str(tmp_path / "reference.h5")]
    given += ["--no-classifiers", "--calochallenge", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out" / "report.html").read_text()
    row = page[page.index(">FPD x 1000, of all showers<") :]
    assert row[: row.index("</tr>")].count("24.7 ± 1.1") == 1
    assert "362 features of deposits of at least 15.15 keV (CaloChallenge/homepage" in page
    assert "0.0247" not in page
    assert "362 features above 15.15 keV" in " ".join(result.output.split())
