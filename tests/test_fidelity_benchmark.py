"""The fidelity benchmark on a few showers: rows, tables, cards, and an interrupted run that goes on."""

from __future__ import annotations

import doctest
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import card, fidelity, fidelity_figures, fidelity_row, fidelity_table
from metacalo.evaluate import classifier
from metacalo.evaluate.rounding import quoted
from metacalo.model_folders.base import Base, resolve_base
from metacalo.showers import Showers, data_folder, open_showers, write_showers

BASE, SHOTS, SHOWERS, COUNTED, AT_10_GEV = "base-no-pblar", 24, 36, 50, 4
GEANT4 = "Geant4"
ERRORLESS = {"value": 0.5, "error": None, "floor": 0.5, "floor_error": None}


@pytest.fixture(scope="module")
def base() -> Base:
    return resolve_base(BASE)


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> Callable[..., list[str]]:
    """Options of a short run: one step of adaptation, few showers, and 8 showers of 10 GeV."""
    folder = tmp_path_factory.mktemp("given")
    with open_showers(data_folder("tasks") / "pblar" / "showers.h5") as file:
        some = file.load(np.arange(AT_10_GEV))
    at_10_gev = np.full(AT_10_GEV, 1e4, np.float32)
    scaled = some.showers * (at_10_gev / some.energy)[:, None, None, None]
    write_showers(folder / "PBLAR_10GeV.h5", Showers(scaled, at_10_gev, some.theta, some.phi, some.detector))
    (folder / "adapt.toml").write_text("steps = 1\nbatch = 4\n", encoding="utf-8")

    def given(out: Path, *more: object) -> list[str]:
        told = ["--base", BASE, "--task", "pblar", "--fixed", folder, "--config", folder / "adapt.toml"]
        told += ["--showers", SHOWERS, "--diversity", COUNTED, "--rotations", 1, "--picture-shots", SHOTS]
        return [*map(str, (*told, "--jobs", 1, "--out", out, *more))]

    return given


@pytest.fixture(scope="module")
def ran(tmp_path_factory, options) -> Iterator[Path]:
    """The folder of a run of a generator and the library, at no shots and at 24."""
    out = tmp_path_factory.mktemp("fidelity") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "SPEED_SHOWERS", 5)
        patch.setattr(classifier, "_TREES", 5)  # most of the time, for figures that are tested elsewhere
        fidelity.main(options(out, "--shots", 0, SHOTS, "--generator", "ar", "frozen"))
        yield out


@pytest.fixture
def result(ran) -> dict[str, Any]:
    """What that run wrote."""
    return json.loads((ran / "table.json").read_text(encoding="utf-8"))


def tables(lines: list[str]) -> dict[str, list[list[str]]]:
    """The cells of every table, without its head, by its title."""
    found: dict[str, list[list[str]]] = {}
    title = ""
    for line in lines:
        title = line.removeprefix("## ") if line.startswith("## ") else title
        if line.startswith("|"):
            found.setdefault(title, []).append([cell.strip() for cell in line.strip("|").split("|")])
    for head, rule, *rows in found.values():
        assert {len(row) for row in rows} == {len(head)} == {len(rule)}
    return {title: rows for title, (_, _, *rows) in found.items()}


def test_a_row_for_each_generator_and_number_of_shots(ran, result, base):
    rows = [(row["shots"], row["label"]) for row in result["rows"].values()]
    assert rows == [(0, "ar"), (SHOTS, "ar"), (SHOTS, "frozen")]
    for row in result["rows"].values():
        assert row["showers"] == {"generated": SHOWERS, "reference": SHOWERS}
        assert not row["pretrained_on"]
        assert (row["adaptation_seconds"] is None) == (row["shots"] == 0)
        assert row["figures"]["many_showers"]["value"] == COUNTED
        assert row["figures"]["mean_w1"]["floor"] > 0
        assert row["figures"]["mean_w1"] == row["metrics"]["mean_w1"]
        assert [(part["energy_GeV"], part["extrapolation"]) for part in row["fixed"]] == [(10.0, False)]
    assert set(result["speed"]) == {"ar", "frozen"}
    assert all(speed["ms"] > 0 for speed in result["speed"].values())
    assert result["bases"][BASE]["hash"] == base.hash
    assert (ran / "profiles-pblar.png").read_bytes().startswith(b"\x89PNG")


def test_the_tables_have_a_line_for_each_row_and_for_geant4(ran):
    text = (ran / "table.md").read_text(encoding="utf-8")
    assert text.startswith(f"# Fidelity\n\n    python -m benchmarks.fidelity --base {BASE} --task pblar ")
    found = tables(text.splitlines())
    for title in ("Distances and classifiers", "Diversity and copies", "Shapes", "Mean W1 by group of observables"):
        assert [line[:3] for line in found[title]] == [
            *(["pblar (never seen)", "0", name] for name in ("ar", GEANT4)),
            *(["pblar (never seen)", str(SHOTS), name] for name in ("ar", "frozen", GEANT4)),
        ]
    main = {(line[1], line[2]): line for line in found["Distances and classifiers"]}
    assert "-" not in [cell for label in ("ar", "frozen", GEANT4) for cell in main[str(SHOTS), label][:12]]
    assert all("(" in main[str(SHOTS), label][4] for label in ("ar", "frozen", GEANT4))
    counted = {line[2]: line[-6:] for line in found["Diversity and copies"]}
    assert [line[::3] for line in counted.values()] == [[str(SHOWERS), n] for n in (str(COUNTED), "-", str(COUNTED))]
    assert float(counted["frozen"][5]) <= SHOTS < float(counted["ar"][5])
    assert [line[2] for line in found["Against the frozen library of the same shots"]] == ["ar"]
    assert [line[2:5] for line in found["E_total/E_inc at fixed energies"][-2:]] == [
        ["10 GeV", "frozen", str(5 * AT_10_GEV)],
        ["10 GeV", GEANT4, str(AT_10_GEV)],
    ]


def test_the_response_at_a_fixed_energy(result):
    found = next(row for row in result["rows"].values() if row["label"] == "frozen")["fixed"][0]["figures"]
    mean, width = found["response_mean"], found["response_width"]
    assert found["mean_difference"]["value"] == pytest.approx(mean["value"] / mean["floor"] - 1)
    assert found["width_ratio"]["value"] == pytest.approx(width["value"] / width["floor"])
    error = np.hypot(mean["error"] / mean["floor"], mean["value"] * mean["floor_error"] / mean["floor"] ** 2)
    assert found["mean_difference"]["error"] == pytest.approx(error)


def test_an_interrupted_run_goes_on(ran, result, options, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    kept = dict(list(result["rows"].items())[:2])
    (out / "table.json").write_text(json.dumps(result | {"rows": kept}), encoding="utf-8")
    again = options(out, "--shots", 0, SHOTS, "--generator", "ar", "frozen", "--resume")
    fidelity.main(again)
    assert capsys.readouterr().out.count(" s)") == 1
    found = json.loads((out / "table.json").read_text(encoding="utf-8"))
    assert list(found["rows"]) == list(result["rows"])
    for key, row in found["rows"].items():
        assert row["metrics"] == result["rows"][key]["metrics"]
        assert (row == result["rows"][key]) == (key in kept)
    with pytest.raises(SystemExit, match=r"was made with other showers; leave --resume out or give another --out"):
        fidelity.main([*again, "--showers", "29"])


def test_shots_of_raw_deposits_are_adapted_to_as_such(base):
    task = fidelity_row.task_of("pblar", settings := fidelity_row.FidelitySettings(bases=(BASE,)))
    with task.open() as file:
        shots = file.load(np.arange(SHOTS))
    for factor, scale in ((1.0, 1.0), (0.19, 0.19 * (shots.showers.sum((1, 2, 3)) / shots.energy).mean())):
        scaled = replace(shots, showers=np.float32(factor) * shots.showers)
        model, _ = fidelity_row.adapted(base, task.detector, scaled, "frozen", 1, settings)
        assert model.normaliser.scale == pytest.approx(scale, rel=1e-4)


def test_several_seeds_are_averaged(result):
    row = result["rows"].popitem()[1]
    seeds = [
        row | {"seed": seed, "figures": row["figures"] | {"mean_w1": {**ERRORLESS, "value": value, "error": 0.1}}}
        for seed, value in ((1, 1.0), (2, 1.4))
    ]
    found = tables(fidelity_table.markdown(result | {"rows": {str(row["seed"]): row for row in seeds}}))
    assert [line[4] for line in found["Distances and classifiers"]] == ["1.2(2)", "0.5"]
    assert fidelity_figures.averaged([{**ERRORLESS, "error": 0.1}] * 4)["error"] == pytest.approx(0.1)


def test_a_base_beside_has_a_floor_of_its_own_number_of_showers(result):
    key, row = next(iter(result["rows"].items()))
    other = row | {"label": "ar (other)", "showers": {"generated": 10, "reference": SHOWERS}, "pretrained_on": True}
    found = tables(fidelity_table.markdown(result | {"rows": {key: row, "other": other}}))
    assert [[line[0], *line[2:4]] for line in found["Distances and classifiers"]] == [
        ["pblar (never seen)", "ar", str(SHOWERS)],
        ["pblar (in training)", "ar (other)", "10"],
        ["pblar (never seen)", GEANT4, str(SHOWERS)],
        ["pblar (never seen)", f"{GEANT4}, for 10", str(SHOWERS)],
    ]


def test_a_base_beside_has_rows_of_its_generators_but_no_library(base, tmp_path):
    shutil.copytree(base.path, tmp_path / "other")
    settings = fidelity_row.FidelitySettings(bases=(BASE, str(tmp_path / "other")))
    wanted, left_out = fidelity.planned(settings, ["pblar"], [0, 50], [1], [])
    assert left_out == []
    assert [(row.shots, row.label(settings)) for row in wanted] == [
        *((0, label) for label in ("ar", "diffusion", "ar (other)", "diffusion (other)")),
        *((50, label) for label in ("ar", "diffusion", "frozen", "ar (other)", "diffusion (other)")),
    ]


def test_what_cannot_be_compared_is_left_out_with_a_sentence():
    settings = fidelity_row.FidelitySettings(bases=(BASE,))
    wanted, left_out = fidelity.planned(settings, ["pbwo4"], [100, 1000], [1, 2], ["diffusion", "frozen"])
    assert [(row.shots, row.generator, row.seed) for row in wanted] == [
        (100, name, seed) for name in ("diffusion", "frozen") for seed in (1, 2)
    ]
    assert len(left_out) == 1
    assert left_out[0].startswith("pbwo4 at 1000 shots is left out: of 1,000 showers, 0 unseen ones would be left")


def test_shots_are_nested_and_the_reference_is_unseen():
    known = np.random.default_rng(0).random(500) < 0.3
    few, many = (fidelity_row.split(known, shots, 1, 100) for shots in (20, 200))
    assert known[few[0]].all()
    assert set(few[0]) < set(many[0])
    assert set(known.nonzero()[0]) < set(many[0])
    for shots, reference in (few, many):
        assert len(reference) == 100
        assert not known[reference].any()
        assert not set(shots) & set(reference)
    assert list(few[1]) == list(many[1])
    assert not np.array_equal(few[0], fidelity_row.split(known, 20, 2, 100)[0])


def test_mistakes_are_one_sentence(options, tmp_path):
    for more, told in (
        (("--generator", "difusion"), "unknown generator 'difusion' .* did you mean 'diffusion'"),
        (("--base", "bas-no-pblar"), "unknown base 'bas-no-pblar'"),
        (("--fixed", "nowhere"), "--fixed nowhere: there is no such folder"),
        (("--rotations", 6), "'rotations' = 6 is not valid"),
        (("--shots", 1), "--shots 1: 0, or 2 and more, are possible"),
        (("--config", "no.toml"), "no.toml: there is no such settings file"),
    ):
        with pytest.raises(SystemExit, match=f"^fidelity: .*{told}"):
            fidelity.main(options(tmp_path / "out", *more))


def test_a_card_carries_the_tables(ran, result, base, tmp_path):
    lines = card.fidelity_lines(base, [ran / "table.json", ran / "table.json"])
    text = card.card(base, lines, None)
    assert text.startswith(f"# {BASE}\n")
    assert text.count("\n## Fidelity\n") == text.count("\n## Fidelity, continued\n") == 1
    assert text.count("\n### Distances and classifiers\n") == 2
    assert text.count("\n### Diversity and copies\n") == 1  # of further files the main tables only
    result["bases"][BASE]["hash"] = "another"
    (tmp_path / "table.json").write_text(json.dumps(result), encoding="utf-8")
    with pytest.raises(SystemExit, match="holds no figures of 'base-no-pblar' with hash"):
        card.fidelity_lines(base, [tmp_path / "table.json"])


@pytest.mark.parametrize("module", [fidelity_figures, fidelity_row, fidelity_table])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_values_with_errors():
    assert quoted(-0.00004, 0.0003) == "-0.0000(3)"
    assert quoted(0.5, 0.0096) == "0.500(10)"
    assert quoted(370.66, 2.3) == "371(2)"
    assert quoted(1.0, 0.0) == "1"
