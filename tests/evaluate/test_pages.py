"""The report as its readers meet it: one page that stands alone, a PDF, and figures."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from metacalo.evaluate.figures.catalogue import CATALOGUE
from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.figures.displays import projections, shown_rows
from metacalo.evaluate.figures.style import drawable
from metacalo.evaluate.html import card_html
from metacalo.evaluate.pages import write_pages
from metacalo.runtime.pictures import own_settings
from metacalo.showers import Showers

ODD = "<script>alert('x')</script> $&\n_日"
METRICS = {
    ODD: {
        "mean_w1": {"value": 0.1234, "error": 0.01, "floor": 0.0567, "floor_error": 0.002},
        "warnings": ["only 40 generated showers: <b>rough</b>"],
    }
}
CARD = """# A model

<img src=x onerror=alert(1)> ![picture](http://example.org/x.png) [link](javascript:alert(1))

| a | b |
|---|---|
| 1 | 2 |
"""
AGAINST_ENERGY = ("response_mean", "resolution", "profile_by_energy")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Elements with their attributes and all text; an element that is closed out of turn is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, halves):
    path = tmp_path_factory.mktemp("report")
    samples = {"Geant4": halves[0].select(np.arange(60)), ODD: halves[1].select(np.arange(40))}
    write_pages(path, samples, METRICS, title="<i>PbLAr</i>", command="metacalo evaluate a & b", cards={ODD: CARD})
    return path


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def test_every_figure_is_in_the_page_and_a_file(folder, text):
    names = {entry.name for entry in CATALOGUE}
    assert {path.stem for path in (folder / "figures").iterdir()} == names
    figures = [attrs["id"] for tag, attrs in Page(text).elements if tag == "figure"]
    assert set(figures) == names
    assert len(figures) == len(names)
    for name in ("response", "showers_3d", "layer_correlations"):
        picture = imread(folder / "figures" / f"{name}.png")
        assert 0.005 < np.mean(picture[..., :3].min(axis=-1) < 0.9) < 0.7


def test_the_page_stands_alone(folder, text):
    page = Page(text)
    for tag, attrs in page.elements:
        assert tag not in {"script", "iframe", "object", "embed"}
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            target = attrs.get(name) or ""
            assert tag == "a" or target.startswith(("#", "data:")) or not target, (tag, target)
    assert "url(" not in re.sub(r"url\((['\"]?)#", "", text)
    assert "@import" not in text
    assert len(text) < 6e6
    identifiers = [attrs["id"] for tag, attrs in page.elements if tag in {"section", "figure"}]
    assert len(set(identifiers)) == len(identifiers)
    links = {attrs["href"] for tag, attrs in page.elements if tag == "a" and "href" in attrs}
    assert {link for link in links if not link.startswith("http")} <= {f"#{identifier}" for identifier in identifiers}


def test_what_is_reported_is_escaped(text):
    message = " ".join(" ".join(Page(text).texts).split())
    assert "<i>PbLAr</i>" in message
    assert "<script>alert('x')</script> $& _日" in message
    assert "<b>rough</b>" in message
    assert "metacalo evaluate a & b" in message
    assert "0.123 ± 0.010" in message
    assert "0.057 ± 0.002" in message
    assert "CaloDREAM" in message


def test_a_card_is_markdown_but_not_trusted():
    html = str(card_html(CARD))
    assert "<h3>A model</h3>" in html
    assert "<td>1</td>" in html
    tags = {tag for tag, _ in Page(html).elements}
    assert not tags & {"img", "script"}
    assert 'href="javascript' not in html


def test_the_pdf_has_a_page_for_every_figure_after_the_table(folder):
    content = (folder / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type /Page\b", content)) == len(CATALOGUE) + 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed, so the page is not opened in a browser")
def test_a_browser_shows_the_page_without_complaint(folder, tmp_path):
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}"]
    options += ["--enable-logging=stderr", "--v=0", "--dump-dom"]
    command = [str(CHROMIUM), *options, (folder / "report.html").as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    assert "CONSOLE" not in ran.stderr
    assert ran.stdout.count("<figure") == len(CATALOGUE)
    assert ran.stdout.rstrip().endswith("</html>")


def noise(n: int, grid: tuple[int, int, int], seed: int) -> Showers:
    rng = np.random.default_rng(seed)
    voxels = rng.exponential(10.0, (n, *grid)).astype(np.float32) * (rng.random((n, *grid)) < 0.3)
    energy, theta = rng.uniform(1e3, 1e5, n).astype(np.float32), np.full(n, np.pi / 2, np.float32)
    return Showers(voxels.astype(np.float32), energy, theta, np.zeros(n, np.float32))


def emptied(sample: Showers) -> Showers:
    return replace(sample, showers=np.zeros_like(sample.showers))


def at_one_energy(sample: Showers) -> Showers:
    return replace(sample, energy=np.full(len(sample), 1e4, np.float32))


COARSE = noise(20, (3, 4, 5), 1), noise(25, (3, 4, 5), 2)


@pytest.mark.parametrize(
    "samples",
    [
        COARSE,
        (emptied(COARSE[0]), at_one_energy(COARSE[1])),
        (at_one_energy(noise(20, (1, 1, 1), 3)), emptied(noise(20, (1, 1, 1), 4))),
    ],
    ids=["coarse mesh", "empty reference", "one voxel, one energy, empty sample"],
)
def test_any_samples_can_be_drawn(samples):
    compared = Compared.of({"Geant4": samples[0], "generated": samples[1]})
    with own_settings():
        for entry in CATALOGUE:
            figure = entry.draw(compared)
            if figure is None:
                against_energy = AGAINST_ENERGY if compared.one_energy else ()
                assert entry.name in {"profile_by_angle", "ladder", *against_energy}
            else:
                figure.set_dpi(20)
                figure.canvas.draw()


def test_the_showers_shown_are_of_one_energy(halves):
    compared = Compared.of({"Geant4": halves[0], "generated": halves[1]})
    rows = shown_rows(compared)
    assert len(rows) == 3
    for first, other in rows:
        energies = float(halves[0].energy[first]), float(halves[1].energy[other])
        assert np.log(energies[0] / energies[1]) == pytest.approx(0, abs=0.1)
    shower = np.asarray(halves[0].showers[0], np.float64)
    for projection in projections(shower).values():
        assert projection.sum() == pytest.approx(shower.sum())
    assert {name: part.shape for name, part in projections(shower).items()} == {
        "rz": (9, 45),
        "phiz": (16, 45),
        "rphi": (9, 16),
    }


def test_labels_are_made_fit_to_draw():
    assert drawable("a" * 80).count("a") < 34
    assert drawable("_x") == " _x"
    assert drawable("$x$ 日") == "\\$x\\$ ?"
