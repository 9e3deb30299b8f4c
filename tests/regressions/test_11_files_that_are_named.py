"""Files of the field are read, or refused by their name."""

from __future__ import annotations

from dataclasses import replace

import awkward
import h5py
import numpy as np
import pytest
import uproot

from metacalo.convert import ConvertSettings, convert
from metacalo.detectors.grid import Grid
from metacalo.detectors.published_stacks import published_detector
from metacalo.errors import ShowerFileError
from metacalo.ntuples.ntuple import NtupleWarning
from metacalo.showers import open_showers
from tests.ntuple import write_ntuple, write_tree
from tests.samples import shipped

PAR04 = ConvertSettings(to="par04")


@pytest.fixture(scope="module")
def siw():
    return shipped("siw", slice(0, 20))


@pytest.mark.parametrize(("voxels", "particles"), [(368, "photons"), (533, "pions")])
def test_calochallenge_1_is_named(tmp_path, voxels, particles):
    path = tmp_path / "dataset_1.hdf5"
    with h5py.File(path, "w") as file:
        file["showers"], file["incident_energies"] = np.ones((3, voxels)), np.full((3, 1), 1e4)
    with pytest.raises(ShowerFileError, match=rf"{voxels} voxels .* CaloChallenge dataset 1 \({particles}\)"):
        open_showers(path)


def test_the_files_of_a_job_with_threads_are_one_sample(tmp_path, siw):
    for thread in range(3):
        write_ntuple(tmp_path / f"showers_t{thread}.root", siw[np.arange(thread, 20, 3)])
    convert(tmp_path / "showers_t*.root", tmp_path / "out.h5", PAR04, described=siw.detector)
    with open_showers(tmp_path / "out.h5") as file:
        order = np.concatenate([np.arange(thread, 20, 3) for thread in range(3)])
        np.testing.assert_allclose(file.read(slice(None)), siw.showers[order], rtol=1e-6)
        np.testing.assert_array_equal(file.energy, siw.energy[order])
    (tmp_path / "showers_t9.root").write_text("no ROOT file")
    with pytest.raises(ShowerFileError, match=r"matches ROOT files and showers_t9.root, which is no ROOT file"):
        convert(tmp_path / "showers_t*.root", tmp_path / "again.h5", PAR04)


def test_rntuples_are_read(tmp_path, siw):
    event, *indices = np.nonzero(siw.showers)
    counts = np.bincount(event, minlength=len(siw))
    names = ("rhoCell", "phiCell", "zCell")
    cells = {name: awkward.unflatten(index, counts) for name, index in zip(names, indices, strict=True)}
    cells["EnergyCell"] = awkward.unflatten(siw.showers[event, *indices].astype(float), counts)
    with uproot.recreate(tmp_path / "new.root") as file:
        file.mkrntuple("global", {"EnergyMC": siw.energy, "ThetaMC": siw.theta, "PhiMC": siw.phi})
        file.mkrntuple("virtualReadout", cells)
    convert(tmp_path / "new.root", tmp_path / "out.h5", PAR04, described=siw.detector)
    with open_showers(tmp_path / "out.h5") as file:
        np.testing.assert_allclose(file.read(slice(None)), siw.showers, rtol=1e-6)


def one_based(path, showers, *, last=True):
    event, *indices = np.nonzero(showers.showers)
    counts = np.bincount(event, minlength=len(showers))
    names = ("rhoCell", "phiCell", "zCell")
    cells = {name: awkward.unflatten(index + 1, counts) for name, index in zip(names, indices, strict=True)}
    cells["EnergyCell"] = awkward.unflatten(showers.showers[event, *indices].astype(float), counts)
    particle = {"EnergyMC": showers.energy, "ThetaMC": showers.theta, "PhiMC": showers.phi}
    with uproot.recreate(path) as file:
        write_tree(file, "global", {name: values.astype(float) for name, values in particle.items()})
        write_tree(file, "virtualReadout", cells)
    return path


def test_indices_from_1_are_noticed(tmp_path, siw):
    full = replace(siw, showers=np.where(siw.showers > 0, siw.showers, np.float32(1e-6)))  # cells to every edge
    path = one_based(tmp_path / "one.root", full)
    with pytest.warns(NtupleWarning, match="cell indices run from 1 to 9, 16, 45 in r, phi and z and are taken to be"):
        convert(path, tmp_path / "out.h5", ConvertSettings(to="par04", threshold=0.001), described=siw.detector)
    with open_showers(tmp_path / "out.h5") as file:
        assert file.grid.shape == (9, 16, 45)
        np.testing.assert_allclose(file.read(slice(None)), siw.showers, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*the mesh is taken to be", "ignore:.*less even in phi")
def test_indices_that_may_be_from_1_are_reported(tmp_path, siw):
    path = one_based(tmp_path / "one.root", replace(siw, showers=np.where(np.arange(45) < 30, siw.showers, 0)))
    with pytest.warns(NtupleWarning, match="no cell has an index of 0 in r, phi or z"):
        convert(path, tmp_path / "out.h5", PAR04)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("SiW_angle_90", "SiW"),
        ("detector_SiW_eM_64GeV_angle70_0", "SiW"),
        ("e-_SciPb_100GeV", "SciPb"),
        ("scipb2", "SciPb"),
        ("Siwan", None),
        ("PSiW", None),
        ("SiW_and_SciPb", None),
    ],
)
def test_detector_names_are_found_as_words(stem, name):
    found = published_detector(stem, Grid())
    assert (found.name if found else None) == name
