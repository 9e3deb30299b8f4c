"""Each figure is a PNG and a PDF that say what they are of, with units, and come out alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metacalo.evaluate.figures import catalogue, distributions
from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.pages import write_pages
from metacalo.runtime.pictures import own_settings, rendered
from metacalo.showers import open_showers, write_showers
from tests.samples import shipped


@pytest.fixture(scope="module")
def samples():
    first, second = shipped("pblar", slice(0, 60)), shipped("pblar", slice(60, 120))
    return {"Geant4": replace(first, particle="gamma"), "my model": second}


def words(figure) -> str:
    axes = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel(), axes.get_title())]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    written = [text.get_text() for axes in figure.axes for text in axes.texts]
    ticks = [text.get_text() for axes in figure.axes for text in axes.get_yticklabels()]
    return "\n".join([*written, *ticks, *(text.get_text() for text in figure.texts), *axes, *legends])


def test_every_figure_says_detector_particle_and_energies(samples):
    compared = Compared.of(samples)
    with own_settings():
        for entry in catalogue.CATALOGUE:
            text = words(entry.draw(compared))
            for wanted in ("PbLAr", r"$\gamma$", "GeV", r"$\theta$ = ", "my model"):
                assert wanted in text, (entry.name, wanted)


def test_the_particle_is_named_only_where_the_file_names_it(samples, tmp_path):
    write_showers(tmp_path / "plain.h5", samples["my model"])
    with open_showers(tmp_path / "plain.h5") as file:
        assert file.load().particle is None
        assert "e^" not in Compared.of({"Geant4": file.load()}).heading.beam
    write_showers(tmp_path / "labelled.h5", samples["my model"], attributes={"particle": "e-"})
    with open_showers(tmp_path / "labelled.h5") as file:
        assert file.load([3, 1]).particle == "e-"
        assert Compared.of({"Geant4": file.load()}).heading.beam.startswith("$e^{-}$, ")


def test_axes_have_units(samples):
    compared = Compared.of(samples)
    cell = samples["Geant4"].detector.grid.dr_mm
    with own_settings():
        figure = distributions.distribution(compared, "lateral_mean")
        assert "mean radius (mm)" in words(figure)
        assert "probability density (1 / mm)" in words(figure)
        figure = distributions.lateral_profile(compared)
        assert figure.axes[1].get_xlabel() == "r (mm)"
        assert figure.axes[1].get_xlim() == pytest.approx((0, 9 * cell))
        bare = {label: replace(sample, detector=None) for label, sample in samples.items()}
        assert "mean radius (cells)" in words(distributions.distribution(Compared.of(bare), "lateral_mean"))


def test_the_ratio_has_the_band_of_the_reference_and_points_side_by_side(samples):
    three = {**samples, "another": samples["my model"]}
    with own_settings():
        ratio = distributions.longitudinal_profile(Compared.of(three)).axes[1]
        assert "Geant4" in ratio.get_ylabel()
        assert len(ratio.patches) == 1
        first, second = (np.asarray(line.lines[0].get_xdata()) for line in ratio.containers)
        assert np.all(second - first > 0.1)
        assert np.all(second - first < 1)


def test_each_figure_is_a_png_and_a_pdf_and_comes_out_alike(samples, tmp_path, monkeypatch):
    chosen = [entry for entry in catalogue.CATALOGUE if entry.name in ("response", "showers_unrolled")]
    monkeypatch.setattr("metacalo.evaluate.pages.CATALOGUE", chosen)
    write_pages(tmp_path, samples, {"my model": {}}, title="x")
    names = {f"{entry.name}.{suffix}" for entry in chosen for suffix in ("png", "pdf")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == names
    assert (tmp_path / "figures" / "response.pdf").read_bytes().startswith(b"%PDF")
    compared = Compared.of(samples)
    with own_settings():
        for suffix in ("png", "pdf"):
            once, again = (rendered(distributions.distribution(compared, "response"), suffix) for _ in range(2))
            assert once == again == (tmp_path / "figures" / f"response.{suffix}").read_bytes()
