from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from metacalo.errors import ConfigError, OutputError, ShowerFileError
from metacalo.evaluate import EvaluateSettings, all_warnings, compare, evaluate_files, table
from metacalo.evaluate.jetnet import jetnet_fpd, jetnet_kpd
from metacalo.evaluate.report import labels_of
from metacalo.evaluate.rounding import quoted
from metacalo.showers import write_showers

FAST = EvaluateSettings(classifiers=False, splits=2, pages=False)
GROUPS = {
    "response",
    "layer_energies",
    "longitudinal_profile",
    "lateral_profile",
    "moments",
    "voxel_spectrum",
    "occupancy",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory, halves, too_much):
    folder = tmp_path_factory.mktemp("files")
    paths = folder / "generated.h5", folder / "reference.h5"
    for path, sample in zip(paths, (too_much, halves[0]), strict=True):
        write_showers(path, sample)
    return paths


def test_geant4_against_itself_lies_at_its_floor(halves):
    metrics = compare(halves[1], halves[0], FAST)
    assert metrics["mean_w1"]["value"] == pytest.approx(metrics["mean_w1"]["floor"], rel=0.4)
    assert metrics["fpd"]["value"] < 5 * max(metrics["fpd"]["error"], metrics["fpd"]["floor"], 0.5)
    assert abs(metrics["kpd"]["value"]) < 3 * metrics["kpd"]["error"]
    assert metrics["layer_correlation"]["value"] == pytest.approx(metrics["layer_correlation"]["floor"], rel=0.5)
    assert metrics["diversity"]["nearest"]["value"] == pytest.approx(1, abs=0.05)
    assert metrics["diversity"]["generated"]["distinct"] > 390 < metrics["diversity"]["reference"]["distinct"]
    assert metrics["low_level_auc"] is metrics["copies"] is None
    assert metrics["showers"] == {"generated": 400, "reference": 400, "floor": [200, 200]}
    assert metrics["warnings"] == []
    assert set(metrics["groups"]) == GROUPS
    for group in metrics["groups"].values():
        assert group["w1"]["value"] < 2.5 * group["w1"]["floor"]
    assert compare(halves[1], halves[0], FAST) == metrics


def test_a_wrong_response_is_seen_in_the_response_and_not_in_the_shape(halves, too_much):
    metrics = compare(too_much, halves[0], EvaluateSettings(splits=2, rotations=1))
    groups = metrics["groups"]
    assert groups["response"]["w1"]["value"] > 10 * groups["response"]["w1"]["floor"]
    assert groups["response"]["separation"]["value"] > 0.5
    assert groups["lateral_profile"]["w1"]["value"] < 2 * groups["lateral_profile"]["w1"]["floor"]
    assert groups["lateral_profile"]["profile_difference"]["value"] < 0.02
    assert metrics["response"]["generated"]["mean"] == pytest.approx(1.1, abs=0.02)
    assert metrics["high_level_auc"]["value"] > 0.8
    assert metrics["high_level_auc"]["floor"] == pytest.approx(0.5, abs=0.2)
    json.dumps(metrics, allow_nan=False)


def test_a_library_is_not_diverse_and_copies_its_shots(halves, frozen):
    metrics = compare(frozen, halves[1], FAST, shots=halves[0].select(np.arange(50)))
    n = metrics["diversity"]["generated"]["showers"]
    assert n == metrics["showers"]["generated"] <= 400  # those with energies of the reference's range
    assert metrics["diversity"]["generated"]["distinct"] <= 50
    assert metrics["recall"]["value"] < 0.8 * metrics["recall"]["floor"]
    assert metrics["coverage"]["value"] < 0.8 * metrics["coverage"]["floor"]
    assert metrics["diversity"]["nearest"]["value"] < 0.05 < 0.9 < metrics["diversity"]["nearest"]["floor"]
    assert metrics["copies"]["shots"] == 50
    assert metrics["copies"]["share"]["value"] == 1
    assert metrics["copies"]["share"]["floor"] == pytest.approx(4 / 401)
    assert metrics["copies"]["ratio"]["value"] < 0.05 < 0.9 < metrics["copies"]["ratio"]["floor"]
    json.dumps(metrics, allow_nan=False)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table({"generated": metrics}))
    message = {re.split(r"\s{2,}", line.strip())[0]: line for line in capture.get().splitlines()}
    assert f"{metrics['diversity']['generated']['distinct']} of {n}" in message["distinct showers"]
    assert "1.000" in message["share too near to a shot"]


def test_response_is_reported_in_bins_of_energy_and_empty_ones_are_none(halves):
    rows = np.flatnonzero((halves[1].energy < 5000) | (halves[1].energy > 16_000))
    metrics = compare(halves[1].select(rows), halves[0], FAST)
    binned = metrics["response_by_energy"]
    assert len(binned["edges"]) == 6
    assert sum(binned["reference"]["showers"]) == 400
    assert binned["generated"]["showers"][2] < 10 < binned["reference"]["showers"][2]
    means, errors = binned["generated"]["mean"], binned["generated"]["mean_error"]
    assert means[-1] == pytest.approx(binned["reference"]["mean"][-1], abs=5 * errors[-1])
    binned["generated"]["mean"][2] = None
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table({"generated": metrics}))
    edges = [f"{edge / 1000:.3g}" for edge in binned["edges"]]
    assert f"mean, width at {edges[0]} - {edges[1]} GeV" in capture.get()
    assert f"{quoted(means[-1], errors[-1])}, {binned['generated']['width'][-1]:.4f}" in capture.get()


def test_few_showers_are_reported_with_the_uncertainty_that_they_imply(halves):
    (warning,) = compare(halves[1].select(np.arange(60)), halves[0].select(np.arange(200)), FAST)["warnings"]
    # 1 / sqrt 60, and Hanley and McNeil's error of an AUC of 0.5 with 60 on either side
    assert warning == "only 60 generated showers: a mean is known to 0.13 standard deviations, an AUC to 0.05"


def test_energies_that_only_one_sample_has_are_left_out(halves):
    high = halves[1].select(np.flatnonzero(halves[1].energy > 10_000))
    metrics = compare(high, halves[0], FAST)
    (message,) = metrics["warnings"]
    numbers = re.match(
        r"compared between 9\.9.* and .* GeV only, the .*: (.*) generated and (.*) reference showers;", message
    )
    assert numbers is not None
    assert numbers[1] == f"{len(high)} of {len(high)}"
    assert numbers[2] == f"{metrics['showers']['reference']} of 400"
    assert metrics["showers"]["generated"] == len(high)
    assert 0.4 * 400 < metrics["showers"]["reference"] < 0.6 * 400
    assert metrics["response_by_energy"]["edges"][0] > 9800
    far = replace(high, energy=high.energy * 100)
    with pytest.raises(ShowerFileError, match="no energies that both have; generate with --cond"):
        compare(far, halves[0], FAST)


def test_other_spectra_are_reported(halves):
    lower = halves[1].select(np.argsort(halves[1].energy)[:250])
    warnings = " | ".join(compare(lower, halves[0].select(np.argsort(halves[0].energy)[150:]), FAST)["warnings"])
    assert "compared between" in warnings
    steep = halves[1].select(np.sort(np.argsort(halves[1].energy)[np.unique((np.arange(400) / 20) ** 2).astype(int)]))
    warnings = " | ".join(compare(steep, halves[0], FAST)["warnings"])
    assert "different spectra of energy" in warnings
    assert "theta" not in warnings


def test_showers_in_both_samples_are_reported_and_no_classifier_is_trained(halves):
    settings = EvaluateSettings(splits=1, rotations=1)
    metrics = compare(halves[0], halves[0], settings)
    (message,) = metrics["warnings"]
    assert message == "400 showers are in both samples: distances are too small, and classifiers mean nothing"
    assert metrics["low_level_auc"] is metrics["high_level_jsd"] is None


def test_another_scale_and_empty_showers_are_reported(halves):
    raw = replace(halves[1], showers=halves[1].showers * np.float32(0.05))
    raw.showers[:7] = 0
    warnings = compare(raw, halves[0], FAST)["warnings"]
    assert warnings[0] == "7 of 400 generated showers are empty (all voxels are 0)"
    assert "one may hold raw deposits" in warnings[1]
    scale = float(re.search(r"--scale ([0-9.]+) brings", warnings[1])[1])
    assert scale == pytest.approx(20, rel=0.04)


def test_another_detector_is_reported(halves):
    assert halves[1].detector is not None
    thicker = replace(halves[1].detector, n_layers=halves[1].detector.n_layers + 1)
    metrics = compare(replace(halves[1], detector=thicker), halves[0], FAST)
    assert metrics["warnings"] == ["the two samples are of different detectors"]


def test_empty_generated_showers_give_figures_and_no_nan(halves):
    nothing = replace(halves[1], showers=np.zeros_like(halves[1].showers))
    metrics = compare(nothing, halves[0], FAST)
    assert metrics["warnings"] == ["400 of 400 generated showers are empty (all voxels are 0)"]
    assert metrics["response"]["generated"] == {"mean": 0.0, "width": 0.0}
    assert metrics["mean_w1"]["value"] > 1
    json.dumps(metrics, allow_nan=False)


def test_what_cannot_be_compared_is_an_error(halves):
    coarse = replace(halves[1], showers=halves[1].showers.sum(axis=2, keepdims=True))
    with pytest.raises(ShowerFileError, match="have 9 x 1 x 45 cells, the reference has 9 x 16 x 45; grids must agree"):
        compare(coarse, halves[0], FAST)
    with pytest.raises(ShowerFileError, match="generated sample has 7 showers; at least 20 are needed"):
        compare(halves[1].select(np.arange(7)), halves[0], FAST)
    with pytest.raises(ConfigError, match="rotations"):
        EvaluateSettings.build({"rotations": 6})


def test_files_become_a_folder_of_metrics_and_a_picture(files, tmp_path, halves):
    out = tmp_path / "result"
    seen = halves[0].hashes()[:150]
    message = evaluate_files(files[0], files[1], out, seen_hashes=seen, settings=FAST, command="metacalo evaluate a b")
    assert json.loads((out / "metrics.json").read_text()) == message
    assert (out / "profiles.png").read_bytes().startswith(b"\x89PNG")
    metrics = message["samples"]["generated"]
    assert metrics["showers"] == {"generated": 400, "reference": 250, "floor": [125, 125]}
    assert message["left_out"] == 150
    assert message["files"] == {"generated": {"generated": str(files[0])}, "reference": str(files[1])}
    assert message["settings"]["splits"] == 2
    assert message["settings"]["calochallenge"] is False
    assert metrics["copies"]["shots"] == 150
    assert metrics["copies"]["share"]["value"] < 0.1
    assert message["command"] == "metacalo evaluate a b"
    with pytest.raises(OutputError, match="exists already"):
        evaluate_files(*files, out, settings=FAST)
    smaller = FAST.model_copy(update={"max_showers": 50})
    again = evaluate_files(*files, out, settings=smaller, force=True)
    assert again["samples"]["generated"]["showers"]["reference"] == 50


@pytest.mark.usefixtures("no_pictures")
def test_several_files_stand_side_by_side_with_the_figures_that_each_has_alone(files, tmp_path, halves):
    other = tmp_path / "other.h5"
    write_showers(other, halves[1])
    message = evaluate_files([files[0], other], files[1], tmp_path / "x", labels=["too much", "[b]fine"], settings=FAST)
    alone = evaluate_files(other, files[1], tmp_path / "y", settings=FAST)
    assert message["samples"]["[b]fine"] == alone["samples"]["other"]
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(message["samples"]))
    (row,) = [line for line in capture.get().splitlines() if "mean W1" in line]
    values = [f"{message['samples'][label]['mean_w1']['value']:.3f}" for label in ("too much", "[b]fine")]
    assert row.index(values[0]) < row.index(values[1])
    assert "[b]fine" in capture.get()
    assert all_warnings(message) == [
        f"{label}: {warning}" for label, found in message["samples"].items() for warning in found["warnings"]
    ]


def test_labels_must_fit_the_files():
    assert labels_of(["a/x.h5", "b/x.h5"]) == ["a/x", "b/x"]
    for files, labels, match in (
        (["x.h5"], ["A", "B"], "--labels names 2 and --generated 1 samples"),
        (["x.h5", "y.h5"], ["A", "A"], "each must be another one"),
        (["x.h5"], ["Geant4"], "none 'Geant4'"),
        ([], None, "no generated file"),
    ):
        with pytest.raises(ConfigError, match=match):
            labels_of(files, labels)


@pytest.mark.usefixtures("no_pictures")
def test_files_of_different_conventions_compare_and_the_challenge_has_its_figures(monkeypatch, tmp_path, files, halves):
    flat = tmp_path / "flat.h5"
    upright = np.full(400, np.pi / 2, np.float32)
    write_showers(flat, replace(halves[1], theta=upright, phi=0 * upright), convention="calochallenge")
    fast = {"min_samples": 200, "max_samples": 400, "batches": 1, "points": 3}
    monkeypatch.setattr("metacalo.evaluate.calochallenge.jetnet_fpd", lambda *both, **_: jetnet_fpd(*both, **fast))
    monkeypatch.setattr(
        "metacalo.evaluate.calochallenge.jetnet_kpd", lambda *both, **_: jetnet_kpd(*both, batch_size=200)
    )
    message = evaluate_files(flat, files[1], tmp_path / "x", settings=FAST)
    found = message["samples"]["flat"]
    assert message["settings"]["calochallenge"] is True
    assert any("different spectra of theta" in warning for warning in found["warnings"])
    assert found["groups"]["response"]["w1"]["value"] < 0.3
    assert found["calochallenge"]["fpd"]["value"] > found["calochallenge"]["fpd_of_all"]["value"] > 0
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(message["samples"]))
    assert f"{found['calochallenge']['fpd_of_all']['value'] * 1e3:.1f}" in capture.get()


def test_a_reference_of_seen_showers_only_is_an_error_and_leaves_nothing(files, tmp_path, halves):
    with pytest.raises(ShowerFileError, match="every shower was used for the adaptation"):
        evaluate_files(*files, tmp_path / "result", seen_hashes=halves[0].hashes(), settings=FAST)
    assert list(tmp_path.iterdir()) == []


def test_the_table_shows_values_beside_floors(halves, too_much):
    metrics = compare(too_much, halves[0], FAST)
    metrics["high_level_auc"] = {"value": 0.91, "error": 0.01, "floor": None, "floor_error": None}
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table({"generated": metrics}))
    text = capture.get()
    assert "400 generated against 400 reference showers" in text
    assert "200 reference showers against 200 others" in text
    assert "W1, voxel spectrum" in text
    assert "0.910 ± 0.010" in text
    assert "AUC, voxels" not in text
