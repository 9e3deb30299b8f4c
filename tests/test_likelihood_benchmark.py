from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.likelihoods import dead_ring, main, shifted
from metacalo.showers import resolve_task


def test_defects():
    with resolve_task("siw").open() as file:
        showers = file.load(np.arange(3))
    dead, off = dead_ring(showers), shifted(showers)
    assert not dead.showers[:, 2].any()
    np.testing.assert_array_equal(np.delete(dead.showers, 2, axis=1), np.delete(showers.showers, 2, axis=1))
    assert not off.showers[..., 0].any()
    np.testing.assert_array_equal(off.showers[..., 1:], showers.showers[..., :-1])


def test_the_table_and_the_picture(tmp_path):
    main(["--showers", "20", "--out", str(tmp_path / "out")])
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == [
        "siw, others",
        "scipb",
        "siw, ring 2 dead",
        "siw, one layer off",
    ]
    assert {line.count("|") for line in table} == {5}
    found = json.loads((tmp_path / "out" / "table.json").read_text(encoding="utf-8"))
    assert found["samples"]["scipb"]["scores"]["bound_diffusion"]["against"]["showers"] == 20
    assert (tmp_path / "out" / "scores.png").stat().st_size > 5000


def test_a_mistake_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"^likelihoods: unknown task 'siww'"):
        main(["--task", "siww", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
