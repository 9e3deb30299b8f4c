"""`metacalo evaluate` on generated showers: figures, picture, table, and honest reference showers."""

from __future__ import annotations

import json

import pytest

from metacalo.generate import GenerateSettings, generate


@pytest.fixture(scope="module")
def generated(tmp_path_factory, adapted, sample):
    """Showers at the conditions of the 60 that are no shots."""
    settings = GenerateSettings(conditions=str(sample), unseen_by=str(adapted.out))
    return generate(adapted.out, tmp_path_factory.mktemp("generated") / "showers.h5", settings)


@pytest.mark.usefixtures("few_figures")
def test_figures_picture_and_table(command, generated, sample, adapted, tmp_path):
    out = tmp_path / "evaluation"
    message = ("--generated", generated, "--reference", sample, "--out", out, "--unseen-by", adapted.out)
    ran = command("evaluate", *message, "--no-classifiers", "--seed", 3)
    assert ran.code == 0
    names = ["figures", "metrics.json", "profiles.pdf", "profiles.png", "provenance.json", "report.html", "report.pdf"]
    assert sorted(path.name for path in out.iterdir()) == names
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "showers against Geant4" in page
    assert "- generator: " in page or "<li>generator: " in page
    assert (out / "profiles.png").read_bytes().startswith(b"\x89PNG")
    message = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    metrics = message["samples"]["showers"]
    assert metrics["showers"] == {"generated": 60, "reference": 60, "floor": [30, 30]}
    assert message["left_out"] == 60
    assert metrics["low_level_auc"] is metrics["high_level_auc"] is None
    assert metrics["copies"]["shots"] == 60
    assert metrics["diversity"]["generated"]["showers"] == 60
    assert metrics["mean_w1"]["value"] > 0 < metrics["mean_w1"]["floor"]
    assert metrics["response"]["reference"]["mean"] == pytest.approx(1, abs=0.05)
    assert message["settings"]["seed"] == 3
    assert message["command"].startswith("metacalo evaluate --generated ")
    for words in (
        "60 generated against 60 reference showers",
        "mean W1",
        "Frechet",
        "kernel physics distance",
        "distinct showers",
        "share too near to a shot",
        "response, mean",
        "Geant4 floor",
    ):
        assert words in ran.out
    assert "AUC" not in ran.out
    assert f"{metrics['mean_w1']['value']:.3f}" in ran.out
    warnings = ran.err.splitlines()
    assert warnings == [f"warning: {text}" for text in metrics["warnings"]]
    assert any("only 60 generated showers: a mean is known to 0.13" in warning for warning in warnings)


@pytest.mark.usefixtures("no_pictures")
def test_without_unseen_by_all_showers_are_the_reference(command, generated, sample, tmp_path):
    message = ("--generated", generated, "--reference", sample, "--out", tmp_path / "x")
    ran = command("evaluate", *message, "--no-classifiers", "--no-pages", "--quiet")
    assert (ran.code, ran.out) == (0, "")
    message = json.loads((tmp_path / "x" / "metrics.json").read_text(encoding="utf-8"))
    metrics = message["samples"]["showers"]
    assert metrics["showers"]["reference"] == 120
    assert message["left_out"] == 0
    assert metrics["copies"] is None


@pytest.mark.usefixtures("no_pictures")
def test_several_files_with_labels(command, generated, sample, tmp_path):
    both = ("--generated", generated, "--generated", sample, "--labels", "AR,again")
    ran = command("evaluate", *both, "--reference", sample, "--out", tmp_path / "x", "--no-classifiers", "--no-pages")
    assert ran.code == 0
    assert "report.html" not in ran.out
    assert "AR" in ran.out
    assert "again" in ran.out
    assert "warning: again: 120 showers are in both samples" in ran.err
