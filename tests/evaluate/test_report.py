from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from metacalo.errors import ConfigError, OutputError, ShowerFileError
from metacalo.evaluate import EvaluateSettings, compare, evaluate_files, table
from metacalo.showers import write_showers

FAST = EvaluateSettings(classifiers=False, splits=2)
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
    assert metrics["diversity"]["generated"]["showers"] == 400
    assert metrics["diversity"]["generated"]["distinct"] <= 50
    assert metrics["diversity"]["nearest"]["value"] < 0.05 < 0.9 < metrics["diversity"]["nearest"]["floor"]
    assert metrics["copies"]["shots"] == 50
    assert metrics["copies"]["share"]["value"] == 1
    assert metrics["copies"]["share"]["floor"] == pytest.approx(4 / 401)
    assert metrics["copies"]["ratio"]["value"] < 0.05 < 0.9 < metrics["copies"]["ratio"]["floor"]
    json.dumps(metrics, allow_nan=False)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(metrics))
    told = {line.split("│")[1].strip(): line for line in capture.get().splitlines() if line.count("│") == 4}
    assert f"{metrics['diversity']['generated']['distinct']} of 400" in told["distinct showers"]
    assert "1.000" in told["share too near to a shot"]


def test_response_is_told_in_bins_of_energy_and_empty_ones_are_none(halves):
    high = halves[1].select(np.flatnonzero(halves[1].energy > 8000))
    metrics = compare(high, halves[0], FAST)
    binned = metrics["response_by_energy"]
    assert len(binned["edges"]) == 6
    assert sum(binned["reference"]["showers"]) == 400
    assert binned["generated"]["showers"][0] == 0
    assert binned["generated"]["mean"][0] is binned["generated"]["width_error"][0] is None
    means, errors = binned["generated"]["mean"], binned["generated"]["mean_error"]
    assert means[-1] == pytest.approx(binned["reference"]["mean"][-1], abs=5 * errors[-1])
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(metrics))
    edges = [f"{edge / 1000:.3g}" for edge in binned["edges"]]
    assert f"mean, width at {edges[0]} - {edges[1]} GeV" in capture.get()
    assert f"{means[-1]:.4f} ± {errors[-1]:.4f}, {binned['generated']['width'][-1]:.4f}" in capture.get()


def test_what_spoils_a_comparison_is_told(halves):
    reference = halves[0]
    few = reference.select(np.flatnonzero(reference.energy > np.quantile(reference.energy, 0.85)))
    warnings = " | ".join(compare(replace(few, energy=few.energy * 3), reference, FAST)["warnings"])
    assert "only 60 generated showers" in warnings
    assert "energies outside the reference's range" in warnings
    assert "different spectra of energy" in warnings
    assert "theta" not in warnings
    assert "in both samples" not in warnings
    (shared,) = compare(reference, reference, FAST)["warnings"]
    assert shared.startswith("400 showers are in both samples")


def test_another_detector_is_told(halves):
    assert halves[1].detector is not None
    thicker = replace(halves[1].detector, n_layers=halves[1].detector.n_layers + 1)
    metrics = compare(replace(halves[1], detector=thicker), halves[0], FAST)
    assert metrics["warnings"] == ["the two samples are of different detectors"]


def test_empty_generated_showers_give_figures_and_no_nan(halves):
    nothing = replace(halves[1], showers=np.zeros_like(halves[1].showers))
    metrics = compare(nothing, halves[0], FAST)
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
    metrics = evaluate_files(*files, out, seen_hashes=seen, settings=FAST, command="metacalo evaluate a b")
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "profiles.png"]
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert metrics["showers"] == {"generated": 400, "reference": 250, "floor": [125, 125], "left_out": 150}
    assert metrics["files"] == {"generated": str(files[0]), "reference": str(files[1])}
    assert metrics["settings"]["splits"] == 2
    assert metrics["copies"]["shots"] == 150
    assert metrics["copies"]["share"]["value"] < 0.1
    assert metrics["command"] == "metacalo evaluate a b"
    with pytest.raises(OutputError, match="exists already"):
        evaluate_files(*files, out, settings=FAST)
    smaller = FAST.model_copy(update={"max_showers": 50})
    assert evaluate_files(*files, out, settings=smaller, force=True)["showers"]["reference"] == 50


def test_a_reference_of_seen_showers_only_is_an_error_and_leaves_nothing(files, tmp_path, halves):
    with pytest.raises(ShowerFileError, match="every shower was used for the adaptation"):
        evaluate_files(*files, tmp_path / "result", seen_hashes=halves[0].hashes(), settings=FAST)
    assert list(tmp_path.iterdir()) == []


def test_the_table_shows_values_beside_floors(halves, too_much):
    metrics = compare(too_much, halves[0], FAST)
    metrics["high_level_auc"] = {"value": 0.91, "error": 0.01, "floor": None, "floor_error": None}
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table(metrics))
    text = capture.get()
    assert "400 generated against 400 reference showers" in text
    assert "200 reference showers against 200 others" in text
    assert "W1, voxel spectrum" in text
    assert "0.910 ± 0.010" in text
    assert "AUC, voxels" not in text
