"""Files in GeV are named with the command that mends them, and that command does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metacalo.convert import ConvertSettings, convert
from metacalo.detectors.detector import Detector
from metacalo.errors import ShowerFileError
from metacalo.showers import open_showers
from metacalo.showers.sample_checks import warn_of_conditions, warn_of_file, warn_of_showers
from tests.samples import SIW, attributes_of, shipped, write_plain


@pytest.fixture
def in_gev(tmp_path):
    """Writes SiW showers with their energies and deposits divided."""

    def write(energies: float, deposits: float):
        loaded = shipped("siw", slice(0, 200))
        in_gev = replace(loaded, showers=loaded.showers / deposits, energy=loaded.energy / energies)
        return write_plain(tmp_path / "gev.h5", in_gev, **attributes_of("siw"))

    return write


@pytest.mark.parametrize(
    ("energies", "deposits", "message"),
    [
        (1000, 1000, r"energies and deposits seem to be in GeV .* --energy-scale 1000 --scale 1000\)"),
        (1, 1000, r"deposits seem to be in GeV .* FILE --scale 1000\)"),
        (1, 33_000, r"deposits seem to be in GeV .* FILE --scale 1000\)"),  # raw ones
    ],
)
def test_the_mend_that_is_named_mends(in_gev, tmp_path, energies, deposits, message):
    with open_showers(in_gev(energies, deposits)) as file, pytest.warns(UserWarning, match=message):
        warn_of_file(file)
    settings = ConvertSettings(to="par04", energy_scale=energies, scale=1000)
    convert(tmp_path / "gev.h5", tmp_path / "mended.h5", settings)
    with open_showers(tmp_path / "mended.h5") as file, open_showers(SIW) as true:
        warn_of_file(file)  # a warning would be an error
        np.testing.assert_allclose(file.energy, true.energy[:200], rtol=1e-5)
        np.testing.assert_allclose(file.read([7]), true.read([7]) * (1000 / deposits), rtol=1e-5)


def test_energies_alone_in_gev_are_refused_with_the_mend(in_gev, tmp_path):
    path = in_gev(1000, 1)
    with open_showers(path) as file, pytest.raises(ShowerFileError, match=r"metacalo convert FILE --energy-scale 1000"):
        warn_of_file(file)
    convert(path, tmp_path / "mended.h5", ConvertSettings(to="par04", energy_scale=1000))
    with open_showers(tmp_path / "mended.h5") as file:
        warn_of_file(file)


def test_high_energies_in_gev_are_reported_from_a_low_threshold(in_gev):
    with open_showers(in_gev(1000, 1000)) as file:
        high = file.load(np.argsort(file.energy)[-30:])
    beam = replace(high, energy=high.energy * 4, showers=high.showers * 4)  # 300 GeV and more; nearly as deep
    with pytest.warns(UserWarning, match=r"X0 deeper than those of \d+ MeV: energies and deposits seem to be in GeV"):
        warn_of_showers(beam, "beam")
    with pytest.warns(UserWarning, match=r"--threshold 0\.01515, in MeV\); or energies and deposits seem to be in GeV"):
        warn_of_showers(replace(beam, detector=None), "beam")


def test_energies_alone_in_gev_are_reported_at_any_energy(in_gev):
    with open_showers(in_gev(1, 1)) as file:
        shots = file.load(np.argsort(file.energy)[-30:])
    with pytest.warns(
        UserWarning, match=r"median incident energy .*energies seem to be in GeV .* --energy-scale 1000\)"
    ):
        warn_of_showers(replace(shots, energy=shots.energy / 1000, showers=shots.showers), "beam")
    beam = replace(shots, energy=shots.energy * np.float32(4e-3), showers=shots.showers * 4)
    with pytest.warns(
        UserWarning, match=r"of their incident energy: energies seem to be in GeV .* --energy-scale 1000"
    ):
        warn_of_showers(beam, "beam")


def test_few_raw_deposits_are_not_taken_for_gev(in_gev):
    with open_showers(in_gev(1, 1)) as file:
        shots = file.load(slice(0, 100))
    thin = Detector.from_layers("W:1.4", "Si:0.02", name="thin")
    fraction = 0.8 * thin.mip_sampling_fraction
    assert 0.001 < fraction < 0.002
    thin = thin.on_mesh(shots.detector.grid)
    raw = replace(shots, showers=shots.showers * np.float32(fraction), detector=thin)
    warn_of_showers(raw, "thin")  # a warning would be an error


def test_conditions_in_gev_are_reported_where_they_are_copied(in_gev):
    with open_showers(in_gev(1000, 1000)) as file:
        with pytest.warns(UserWarning, match=r"new\.h5: .*energies seem to be in GeV .*--energy-scale 1000\)"):
            warn_of_conditions(file.energy, "new.h5")
        warn_of_conditions(file.energy * 1000, "new.h5")  # a warning would be an error


def test_convert_cuts_at_a_threshold(in_gev, tmp_path):
    convert(in_gev(1, 1), tmp_path / "cut.h5", ConvertSettings(to="par04", threshold=1.0))
    with open_showers(tmp_path / "cut.h5") as file, open_showers(SIW) as true:
        found, whole = file.read(slice(0, 50)), true.read(slice(0, 50))
    np.testing.assert_array_equal(found, np.where(whole < 1, 0, whole))
