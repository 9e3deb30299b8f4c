from __future__ import annotations

import h5py
import numpy as np

from metacalo.generate import GenerateSettings, generate
from metacalo.model_folders.base import resolve_base
from metacalo.model_folders.provenance_card import card_of
from metacalo.showers import data_folder, resolve_task
from metacalo.showers.shower_file import open_showers
from metacalo.showers.writer import write_showers


def test_a_generated_file_has_the_card_of_its_base(tmp_path):
    out = tmp_path / "made.h5"
    generate("base", out, GenerateSettings(showers=3, generator="diffusion"), detector=resolve_task("siw").detector)
    card = card_of(out)
    assert card.startswith("- generator: diffusion\n- model: base\n- base: base\n- seed: ")
    assert resolve_base("base").hash in card
    with h5py.File(out, "a") as file:
        file.attrs["base_hash"] = "another"
    assert len(card_of(out).splitlines()) == 5


def test_attributes_lead_to_no_other_place(tmp_path, monkeypatch):
    out, lure = tmp_path / "made.h5", tmp_path / "lure"
    lure.mkdir()
    (lure / "CARD.md").write_text("secret")
    with open_showers(data_folder("tasks") / "siw" / "showers.h5") as file:
        showers = file.load(np.arange(3))
    for name in (str(lure), "lure", "../lure", ""):
        write_showers(out, showers, attributes={"base": name, "base_hash": ""}, force=True)
        monkeypatch.chdir(tmp_path)
        assert "secret" not in card_of(out)


def test_geant4_has_no_card():
    assert card_of(data_folder("tasks") / "siw" / "showers.h5") == ""
