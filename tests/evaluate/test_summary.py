from __future__ import annotations

import pytest

from metacalo.evaluate import EvaluateSettings, compare
from metacalo.evaluate.summary import level, summary

ENTRY = {"value": 0.2, "error": 0.01, "floor": 0.1, "floor_error": 0.01}


@pytest.mark.parametrize(
    ("entry", "ideal", "tolerance", "expected"),
    [
        (ENTRY | {"value": 0.15}, 0.0, 0.0, 0),
        (ENTRY, 0.0, 0.0, 1),
        (ENTRY | {"value": 0.9}, 0.0, 0.0, 2),
        (ENTRY | {"value": 1.1}, 0.0, 0.0, 3),
        (ENTRY | {"value": None}, 0.0, 0.0, None),
        (ENTRY | {"floor": None}, 0.0, 0.0, None),
        ({"value": -0.1, "floor": 0.0, "error": 0.1}, 0.0, 0.0, 0),  # within the errors of a floor of zero
        ({"value": 0.70, "floor": 0.49, "error": 0.01}, 0.5, 0.02, 2),
        ({"value": 0.52, "floor": 0.5, "error": 0.0}, 0.5, 0.02, 0),
        ({"value": 0.9, "floor": 0.96, "error": 0.01}, None, 0.0, 2),
        ({"value": 40.0, "ndf": 30, "p_value": 0.1}, 0.0, 0.0, 0),
        ({"value": 90.0, "ndf": 30, "p_value": 1e-8}, 0.0, 0.0, 3),
        ({"value": 0.0, "floor": 0.0}, 0.0, 0.0, 0),
    ],
)
def test_levels_end_at_multiples_of_the_floor(entry, ideal, tolerance, expected):
    assert level(entry, ideal, tolerance) == expected


def test_the_table_shows_the_figures_of_compare(halves, too_much):
    settings = EvaluateSettings(classifiers=False, splits=2)
    metrics = {label: compare(sample, halves[0], settings) for label, sample in (("a", halves[1]), ("b", too_much))}
    rows = {row.label: row for row in summary(metrics)}
    for key, label in (("mean_w1", "mean W1"), ("fpd", "Frechet physics distance")):
        for cell, found in zip(rows[label].cells, metrics.values(), strict=True):
            assert cell.text == "{value:.3f} ± {error:.3f}".format(**found[key])
        assert rows[label].floor == "{floor:.3f} ± {floor_error:.3f}".format(**metrics["a"][key])
    groups = [metrics[label]["groups"]["response"]["w1"]["value"] for label in "ab"]
    assert [float(cell.text.split()[0]) for cell in rows["response: W1"].cells] == pytest.approx(groups, abs=5e-4)
    assert rows["response: W1"].cells[0].level == 0
    assert rows["response: W1"].cells[1].level == 3
    assert rows["response, mean"].cells[1].text == f"{metrics['b']['response']['generated']['mean']:.4f}"
    assert "AUC, voxels" not in rows
    assert len([row for row in rows if row.startswith("lateral profile")]) == 4


def test_unknown_and_absent_metrics_are_no_matter():
    metrics = {
        "a": {"mean_w1": ENTRY, "new_one": ENTRY, "nested": {"newer": ENTRY}, "warnings": []},
        "b": {"mean_w1": None, "recall": ENTRY, "groups": {"moments": {"chi2": {"value": 9.0, "ndf": 4}}}},
        "c": {},
    }
    rows = {row.label: row for row in summary(metrics)}
    chi2 = "moments: chi-squared of the mean profile"
    assert set(rows) == {"mean W1", "new one", "nested: newer", "recall", chi2}
    assert [cell.text for cell in rows["mean W1"].cells] == ["0.200 ± 0.010", "-", "-"]
    assert rows["mean W1"].cells[0].detail == "2 x floor"
    assert rows[chi2].cells[1].detail == "4 degrees of freedom"
    assert rows["recall"].floor == "0.100 ± 0.010"
    assert summary({"a": {}}) == []
