"""Scores through the command: what they are, what they tell apart, and mistakes in one sentence."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest

from metacalo.adapt import AdaptSettings, adapt
from metacalo.errors import MetacaloError
from metacalo.model_folders.adapted import load_model, save_model
from metacalo.scoring.scores import ScoreSettings, fitted_to, score
from metacalo.showers import Grid, open_showers, write_showers

NAMES = ("log_likelihood_ar", "bound_ar", "bound_diffusion")
LATENTS = 1 + 45 + 2 * 9 * 45


N = 48


@pytest.fixture(scope="module")
def few(pblar):
    """Showers of PbLAr, some of them shots of the adapted model."""
    return pblar[:N]


@pytest.fixture(scope="module")
def file(tmp_path_factory, few):
    path = tmp_path_factory.mktemp("few") / "few.h5"
    write_showers(path, few)
    return path


@pytest.fixture
def scored(command, tmp_path, file):
    """What `metacalo score` with those options writes: its output, the datasets, and the summary."""

    def run(model, *options, showers=file, out="scores.h5"):
        path = tmp_path / out
        ran = command("score", showers, "--model", model, "--times", 2, "--out", path, *options)
        assert (ran.code, ran.err) == (0, "")
        with h5py.File(path) as written:
            datasets = {}
            written.visititems(
                lambda name, found: datasets.update({name: found[()]} if isinstance(found, h5py.Dataset) else {})
            )
        return ran.out, datasets, json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))

    return run


@pytest.fixture(scope="module")
def defective(tmp_path_factory, few):
    """The showers in a calorimeter whose third ring is dead."""
    voxels = few.showers.copy()
    voxels[:, 2] = 0
    path = tmp_path_factory.mktemp("defective") / "dead.h5"
    write_showers(path, replace(few, showers=voxels))
    return path


@pytest.fixture
def refused(refused, tmp_path, file):
    """The sentence of a scoring that must fail."""

    def run(model, *options, showers=file, out="scores.h5"):
        return refused("score", showers, "--model", model, "--out", tmp_path / out, *options)

    return run


def test_scores_of_an_adapted_model(adapted, scored, few, tmp_path):
    out, found, summary = scored(adapted.out)
    assert np.array_equal(found["row"], np.arange(N))
    for name, wanted in (("energy", few.energy), ("theta", few.theta), ("phi", few.phi)):
        np.testing.assert_array_equal(found[f"incident_{name}"], wanted)
    total = few.showers.sum((1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(found["response"], total / few.energy)
    assert set(summary["scores"]) == set(NAMES)
    independent = -0.5 * LATENTS * (1 + np.log(2 * np.pi))  # of unit normals, on average
    for name in NAMES:
        entry, values = summary["scores"][name], found[name]
        assert entry["mean"] == pytest.approx(values.mean())
        assert sum(part["showers"] for part in entry["by_energy"]) == entry["showers"] == N
        least = np.argsort(found[f"{name}_deviation"])[:10]
        assert [shower["row"] for shower in entry["outliers"]] == least.tolist()
        assert found[f"{name}_percentile"][least].tolist() == pytest.approx(100 * np.arange(1, 11) / N)
        assert abs(np.median(found[f"{name}_deviation"])) < 0.3
    assert summary["scores"]["bound_diffusion"]["mean"] == pytest.approx(independent, abs=60)
    assert found["bound_diffusion_error"].min() > 0
    assert (found["log_likelihood_ar"] < 0).all()
    with h5py.File(tmp_path / "scores.h5") as written:
        assert written["bound_ar"].attrs["units"] == "nat"
        assert written.attrs["base_hash"] == adapted.model.base.hash
        assert written.attrs["command"].startswith("metacalo score ")
    rows = [str(shower["row"]) for shower in summary["scores"]["bound_diffusion"]["outliers"]]
    assert re.findall(r"^ *(\d+) +\d", out, flags=re.MULTILINE) == rows


def test_a_defect_is_reported_from_the_detector(adapted, scored, defective):
    out, found, summary = scored(adapted.out, "--against", defective, "--outliers", 0)
    assert found["against/row"].shape == (N,)
    for name in ("bound_ar", "bound_diffusion"):
        against = summary["scores"][name]["against"]
        ours, theirs = found[f"{name}_deviation"], found[f"against/{name}_deviation"]
        pairs = (ours[:, None] > theirs).mean() + 0.5 * (ours[:, None] == theirs).mean()
        assert against["auc"] == pytest.approx(pairs)
        assert 0.02 < against["auc_error"] < 0.08
        assert against["auc"] > 0.6
        assert f"{against['auc']:.3f} ± {against['auc_error']:.3f}" in out
    assert "least likely" not in out


def test_a_file_against_itself_is_not_told_apart(adapted, scored, file):
    _, _, summary = scored(adapted.out, "--against", file, "--generator", "ar")
    assert set(summary["scores"]) == {"log_likelihood_ar", "bound_ar"}
    # the latents within intervals are drawn anew for the second file, with the same numbers
    assert summary["scores"]["bound_ar"]["against"]["auc"] == pytest.approx(0.5)


@pytest.mark.parametrize("message", ["task", "file"])
def test_a_base_at_zero_shots(scored, base, sample, message):
    model, detector = {"task": (base.config.name, "pblar"), "file": (base.path, sample)}[message]
    options = ("--detector", detector, "--generator", "diffusion", "--showers", 25)
    _, found, summary = scored(model, *options)
    assert (summary["shots"], summary["detector"]) == (0, "PbLAr")
    assert len(set(found["row"])) == 25
    assert (np.diff(found["row"]) > 0).all()


def test_raw_deposits_at_zero_shots_score_as_calibrated_ones(base, pblar):
    model, settings = load_model(base.path, detector=pblar.detector), ScoreSettings(times=2, generator="diffusion")
    raw = replace(pblar[:30], showers=np.float32(0.05) * pblar.showers[:30])
    there, calibrated = (score(fitted_to(model, s), s, settings) for s in (raw, pblar[:30]))
    assert (raw.showers.sum() / raw.energy.sum()) < 0.1
    found, wanted = there.values["bound_diffusion"], calibrated.values["bound_diffusion"]
    assert abs(found.mean() - wanted.mean()) < 0.2 * wanted.std()


def test_shots_can_be_left_out(adapted, scored, sample):
    _, found, _ = scored(adapted.out, "--unseen", "--generator", "ar", showers=sample)
    assert sorted([*found["row"], *adapted.metrics["shots"]["rows"]]) == list(range(120))


def test_cells_that_no_generator_sees_are_normals(adapted, scored):
    _, without, _ = scored(adapted.out)
    _, found, _ = scored(adapted.out, "--cells", out="cells.h5")
    added = {name: found[name] - without[name] for name in ("bound_ar", "bound_diffusion")}
    # the latents within intervals are others, since the cells' are drawn before them
    assert np.median(added["bound_diffusion"]) == pytest.approx(-0.5 * 6480 * (1 + np.log(2 * np.pi)), abs=150)
    assert np.corrcoef(*added.values())[0, 1] > 0.9


def test_a_file_is_scored_as_showers_in_memory_and_the_seed_decides(adapted, file, few):
    settings = ScoreSettings(times=2, batch_size=20)
    with open_showers(file) as opened:
        read = score(adapted.model, opened, settings)
    held, other = (score(adapted.model, few, s) for s in (settings, ScoreSettings(times=2, seed=2)))
    for name in NAMES:
        np.testing.assert_array_equal(read.values[name], held.values[name])
        assert np.corrcoef(held.values[name], other.values[name])[0, 1] > 0.5
        assert (held.values[name] != other.values[name]).all()


def test_some_rows(adapted, pblar):
    rows = np.array([5, 3, 90])
    found = score(adapted.model, pblar, ScoreSettings(times=2), rows=rows)
    assert found.rows.tolist() == rows.tolist()
    np.testing.assert_array_equal(found.energy, pblar.energy[rows])
    assert len(found) == 3


@pytest.mark.filterwarnings("ignore:.*without a deposit")
def test_a_shower_without_deposit_is_the_least_likely(adapted, scored, few, tmp_path):
    voxels = few.showers.copy()
    voxels[17] = 0
    write_showers(tmp_path / "empty.h5", replace(few, showers=voxels))
    out, _, summary = scored(adapted.out, showers=tmp_path / "empty.h5")
    assert summary["scores"]["bound_diffusion"]["outliers"][0]["row"] == 17
    assert summary["scores"]["bound_diffusion"]["outliers"][0]["response"] == 0
    assert re.search(r"^ *17 +\d", out, flags=re.MULTILINE)


def test_settings_from_a_file_give_way_to_options(adapted, scored, tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text('generator = "ar"\nat_most = 21\noutliers = 2\n', encoding="utf-8")
    _, found, summary = scored(adapted.out, "--config", config, "--outliers", 3)
    assert (summary["generators"], len(found["row"])) == (["ar"], 21)
    assert len(summary["scores"]["bound_ar"]["outliers"]) == 3


def test_another_mesh(refused, adapted, pblar, tmp_path):
    path = tmp_path / "coarse.h5"
    write_showers(path, replace(pblar, showers=pblar.showers[..., :44], detector=None))
    words = f"{path}: the showers have a mesh of 9 x 16 x 44 cells, the model's detector has {Grid()}"
    assert words in refused(adapted.out, showers=path)
    assert words in refused(adapted.out, "--against", path)


def test_what_is_not_there(refused, adapted, tmp_path):
    assert "there is no such file" in refused(adapted.out, showers=tmp_path / "none.h5")
    assert "there is no such file" in refused(adapted.out, "--against", tmp_path / "none.h5")
    assert "there is no such model folder" in refused(tmp_path / "model")
    assert "say for which detector with --detector" in refused("base")


def test_generators_that_cannot_be(refused, base, sample, tmp_path, adapted):
    assert "--generator = 'gan' is not valid" in refused(adapted.out, "--generator", "gan")
    assert "did you mean 'diffusion'?" in refused(adapted.out, "--generator", "difusion")
    assert "a library of frozen showers has no density" in refused(adapted.out, "--generator", "frozen")
    alone = tmp_path / "alone"
    alone.mkdir()
    prior = replace(adapted.model, generators={"ar": adapted.model.generators["ar"]})
    save_model(alone, prior, {}, "0", "")
    assert "unknown generator 'diffusion' (known: ar)" in refused(alone, "--generator", "diffusion")
    settings = AdaptSettings(base=str(base.path), shots=30, generator="frozen", compared_showers=0)
    library = adapt(sample, tmp_path / "library", settings).out
    assert "the model is a library of frozen showers, which has no density; adapt with" in refused(library)


def test_numbers_that_cannot_be(refused, adapted):
    assert "--times = 3 is not valid" in refused(adapted.out, "--times", 3)
    assert "19 showers to score are too few" in refused(adapted.out, "--showers", 19)


def test_results_that_exist(refused, scored, adapted, tmp_path):
    scored(adapted.out, "--generator", "ar", "--showers", 20)
    assert "scores.h5: exists already; give --force" in refused(adapted.out)
    assert "other.json: is where the summary goes" in refused(adapted.out, out="other.json")
    (tmp_path / "scores.h5").unlink()
    assert "scores.json: exists already; give --force" in refused(adapted.out)
    _, found, _ = scored(adapted.out, "--generator", "ar", "--showers", 22, "--force")
    assert len(found["row"]) == 22


def test_a_score_that_is_not_finite_is_reported(adapted, pblar):
    normaliser = adapted.model.normaliser
    broken = replace(
        normaliser,
        energy_dependence=replace(normaliser.energy_dependence, mean=normaliser.energy_dependence.mean * float("nan")),
    )
    with pytest.raises(MetacaloError, match=r"^'latents' of row 0 is not finite \(20 such\); drop showers"):
        score(replace(adapted.model, normaliser=broken), pblar[:20], ScoreSettings(times=2))
