"""Cell sizes that a user states win over those that a convention assumes."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from metacalo.convert import ConvertSettings, convert
from metacalo.detectors.detector import Detector
from metacalo.detectors.json_record import detector_of, record_of
from metacalo.errors import DetectorError
from metacalo.showers import open_showers
from metacalo.showers.conventions import flatten_calochallenge
from metacalo.showers.tasks import resolve_task
from tests.samples import PBLAR, shipped


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Sixty Pb/LAr showers in the layout of CaloChallenge dataset 2, which tells neither detector nor cell sizes."""
    path = tmp_path_factory.mktemp("flat") / "dataset_2_like.hdf5"
    shots = shipped("pblar", slice(0, 60))
    with h5py.File(path, "w") as file:
        file["showers"] = flatten_calochallenge(shots.showers)
        file["incident_energies"] = shots.energy[:, None]
    return path


def described(tmp_path, *lines):
    text = ['name = "mine"', "[grid]", *lines, *(f"[[layers]]\n{layer}" for layer in (
        'material = "Pb"\nthickness_mm = 2.0', 'material = "lAr"\nthickness_mm = 4.0\nactive = true'
    ))]  # fmt: skip
    path = tmp_path / "mine.toml"
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return Detector.from_toml(path)


def test_stated_cell_sizes_win_over_those_of_the_challenge(flat, tmp_path):
    detector = described(tmp_path, "dr_mm = 17.7", "dz_mm = 12.0")
    with open_showers(flat) as file:
        assert (file.grid.dr_mm, file.grid.dz_mm) == (4.65, 3.4)
    task = resolve_task(flat, detector=detector)
    assert (task.detector.grid.dr_mm, task.detector.grid.dz_mm) == (17.7, 12.0)
    with task.open() as file:  # opened once more, as adaptation does
        assert (file.grid.dr_mm, file.grid.dz_mm) == (17.7, 12.0)


def test_cell_sizes_that_nobody_states_are_named(flat):
    detector = Detector.from_layers("Pb:2.0", "lAr:4.0")
    with pytest.warns(UserWarning, match=r"states the cell sizes; dr_mm = 17\.38 and dz_mm = 12 are taken"):
        task = resolve_task(flat, detector=detector)
    assert task.detector.grid.dz_mm == 12.0
    assert task.detector.grid.dr_mm == pytest.approx(0.5 * task.detector.R_M_mm)


def test_cell_sizes_of_the_file_serve_where_the_description_has_none():
    with open_showers(PBLAR, detector=Detector.from_layers("Pb:2.0", "lAr:4.0")) as file:
        assert file.detector.grid.dr_mm == float(file.attributes["dr_mm"])


def test_two_statements_that_differ_are_reported(tmp_path):
    detector = described(tmp_path, "dr_mm = 20.0")
    with (
        pytest.warns(UserWarning, match=r"dr_mm is 17.\d+ in the file and 20 in the description of 'mine'"),
        open_showers(PBLAR, detector=detector) as file,
    ):
        assert file.grid.dr_mm == 20.0


def test_convert_keeps_what_was_stated(flat, tmp_path):
    out = tmp_path / "converted.h5"
    convert(flat, out, ConvertSettings(to="par04"), described=described(tmp_path, "dr_mm = 17.7", "dz_mm = 12.0"))
    with open_showers(out) as file:
        assert (file.grid.dr_mm, file.grid.dz_mm) == (17.7, 12.0)


def test_a_description_tells_how_a_flat_file_is_cut(flat, tmp_path):
    mesh = ("n_r = 18", "n_phi = 8", "n_z = 45", "dr_mm = 9.0", "dz_mm = 12.0")
    with open_showers(flat, detector=described(tmp_path, *mesh)) as file:
        assert file.grid.shape == (18, 8, 45)
        np.testing.assert_array_equal(flatten_calochallenge(file.read([0]))[0], h5py.File(flat)["showers"][0])


def test_a_description_of_another_mesh_is_refused(tmp_path):
    detector = described(tmp_path, "n_r = 18", "n_phi = 50", "n_z = 45")
    with pytest.raises(DetectorError, match="holds showers on 9 x 16 x 45 cells, but 'mine' is described with 18 x 50"):
        open_showers(PBLAR, detector=detector)


def test_a_flat_file_keeps_the_cell_sizes_that_it_states(flat, tmp_path):
    stated = tmp_path / "stated.hdf5"
    stated.write_bytes(flat.read_bytes())
    with h5py.File(stated, "a") as file:
        file.attrs.update(dr_mm=17.7, dz_mm=12.0)
    with open_showers(stated) as file:
        assert (file.grid.dr_mm, file.grid.dz_mm, file.detector) == (17.7, 12.0, None)  # not the challenge's detector
    with pytest.raises(DetectorError, match="its detector is unknown"):
        resolve_task(stated)
    stack = resolve_task(stated, detector=Detector.from_layers("Pb:2.0", "lAr:4.0"))  # a warning would be an error
    assert (stack.detector.grid.dr_mm, stack.detector.grid.dz_mm) == (17.7, 12.0)
    with h5py.File(stated, "a") as file:
        file.attrs.update(dr_mm=4.65, dz_mm=3.4)
    with open_showers(stated) as file:
        assert file.detector_is_assumed
        assert (file.detector.name, file.grid.dr_mm) == ("SiW", 4.65)


def test_a_detector_that_is_assumed_is_named(flat):
    with pytest.warns(UserWarning, match=r"CaloChallenge \(SiW, dr 4\.65 mm, dz 3\.4 mm\) is assumed; state another"):
        resolve_task(flat)


def test_a_record_does_not_turn_derived_sizes_into_stated_ones(tmp_path):
    kept = detector_of(record_of(described(tmp_path, "dr_mm = 17.7")))
    assert (kept.stated.dr_mm, np.isnan(kept.stated.dz_mm)) == (17.7, True)
