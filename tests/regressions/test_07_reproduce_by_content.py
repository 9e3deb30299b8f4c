"""`reproduce` compares what inputs are, and not how their paths were written; sweeps are reproduced too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metacalo.adapt import AdaptSettings, adapt
from metacalo.model_folders.base import resolve_base
from metacalo.reproduction.reproduce import reproduce
from metacalo.showers import data_folder
from metacalo.sweep import SweepSettings, sweep
from tests.samples import attributes_of, shipped, write_plain

SPACE = '[method]\nchoices = ["bias", "modulation"]\n[steps]\nchoices = [2]\n[batch]\nchoices = [16]\n'


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    path = tmp_path_factory.mktemp("shots") / "new.h5"
    return write_plain(path, shipped("siw", slice(0, 40)), **attributes_of("siw"))


@pytest.fixture(scope="module")
def model(shots, tmp_path_factory):
    base = str(data_folder("pretrained") / "base")
    settings = AdaptSettings(base=base, shots=24, generator="diffusion", steps=2, check_every=2, compared_showers=0)
    return adapt(shots, tmp_path_factory.mktemp("model") / "model", settings, quiet=True, command="x").out


@pytest.mark.parametrize("how", ["by name", "relative", "absolute"])
def test_any_path_to_the_same_base_gives_the_same_model(model, how):
    folder = data_folder("pretrained") / "base"
    base = {"by name": "base", "relative": os.path.relpath(folder, Path.cwd()), "absolute": str(folder)}[how]
    found = reproduce(model, base=base)
    assert found.same, [part for part in found.parts if not part.same]
    assert all(part.same for part in found.parts)
    known = {part.what: part.again for part in found.parts}
    assert known["input base"] == resolve_base("base").hash


def test_another_base_is_reported(model):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metacalo.reproduction.reproduce._FUNCTIONS", {"adapt": lambda again: again.out.mkdir()})
        found = reproduce(model, base="base-no-pblar")
    assert [part.what for part in found.parts if part.what.startswith("input") and not part.same] == ["input base"]


def test_a_sweep_is_reproduced(shots, tmp_path):
    (tmp_path / "space.toml").write_text(SPACE, encoding="utf-8")
    settings = SweepSettings(shots=24, trials=2, startup=1, compared_showers=0)
    settings = settings.with_space(SweepSettings().space.from_toml(tmp_path / "space.toml"))
    sweep(shots, tmp_path / "swept", settings, quiet=True)
    found = reproduce(tmp_path / "swept")
    assert found.same, [part for part in found.parts if not part.same]
    assert "missing" not in {text for part in found.parts for text in (part.saved, part.again)}
    assert not any(part.what.startswith("sweep.json") for part in found.parts)
