"""Files of the field as others publish them, written here by h5py alone: recognised without being asked."""

from __future__ import annotations

from math import pi
from pathlib import Path

import h5py
import numpy as np
import pytest

from metacalo.convert import ConvertSettings, convert
from metacalo.detectors.grid import Grid
from metacalo.detectors.published_stacks import lemurs_detector
from metacalo.errors import ShowerFileError
from metacalo.showers.shower_file import open_showers
from metacalo.showers.tasks import resolve_task

LEMURS = "LEMURS_{}_gamma_100kEvents_1GeV1TeV_GPSflat_part{}.h5"


def events(n: int, seed: int = 0, cells: tuple[int, int, int] = (9, 16, 45)) -> dict[str, np.ndarray]:
    """The four fields of LEMURS for `n` sparse showers."""
    draw = np.random.default_rng(seed)
    showers = draw.exponential(1.0, (n, *cells)).astype(np.float32) * (draw.random((n, *cells)) < 0.1)
    energy = draw.uniform(1e4, 1e6, n).astype(np.float32)
    return {
        "showers": showers.astype(np.float32),
        "incident_energy": energy,
        "incident_theta": draw.uniform(0.87, 2.27, n).astype(np.float32),
        "incident_phi": draw.uniform(-pi, pi, n).astype(np.float32),
    }


def datasets(path: Path, fields: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file[name] = values
    return path


def compound(path: Path, fields: dict[str, np.ndarray], **options: object) -> Path:
    rows = np.zeros(len(fields["showers"]), [(name, values.dtype, values.shape[1:]) for name, values in fields.items()])
    for name, values in fields.items():
        rows[name] = values
    with h5py.File(path, "w") as file:
        file.create_dataset("events", data=rows, **options)
    return path


@pytest.mark.parametrize(
    ("name", "detector", "stack", "cells"),
    [
        ("Par04SiW", "SiW", (90, 1.7, "W", "Si"), "dr 4.65 mm, dz 3.4 mm"),
        ("Par04SciPb", "SciPb", (45, 5.6, "Pb", "polystyrene"), "dr 8 mm, dz 5.6 mm, dz from its Moliere radius"),
        ("ODD", "ODD", (48, 5.05, "W", "Si"), "dr and dz from its Moliere radius and X0, as they are not published"),
        ("FCCeeCLD", "CLD", (40, 5.05, "W", "Si"), "dr 4.65 mm, dz 5.05 mm)"),
        ("FCCeeALLEGRO", "ALLEGRO", (110, 3.686, "Pb", "lAr"), "dr 5 mm"),
    ],
)
def test_lemurs_files_are_known_by_their_names(tmp_path, name, detector, stack, cells):
    for part in (1, 2):
        datasets(tmp_path / LEMURS.format(name, part), events(20, seed=part))
    with open_showers(tmp_path / LEMURS.format(name, "*")) as file:
        assert (len(file), file.particle, file.convention) == (40, "gamma", "par04")
        np.testing.assert_array_equal(file.read([25])[0], events(20, seed=2)["showers"][5])
        found = file.detector
        assert found is not None
        assert (found.name, found.n_layers, found.absorber, found.active) == (detector, stack[0], *stack[2:])
        assert found.period_mm == pytest.approx(stack[1])
    with pytest.warns(UserWarning, match="does not describe its detector; that of its name") as caught:
        assert resolve_task(tmp_path / LEMURS.format(name, 1)).detector == found
    assert cells in str(caught[0].message)


def test_allegro_has_its_published_depth_and_response():
    """22 X0 in 405.5 mm; a minimum ionising particle leaves somewhat more in LAr than showers, 0.144."""
    detector = lemurs_detector("LEMURS_FCCeeALLEGRO_gamma_part1", Grid())
    assert detector is not None
    assert detector.n_layers * detector.period_mm == pytest.approx(405.5, abs=0.1)
    assert 21 < 405.5 / detector.X0_mm < 23
    assert 0.144 < detector.mip_sampling_fraction < 0.2


@pytest.mark.parametrize("options", [{}, {"chunks": (4,), "compression": "gzip"}])
def test_compound_events_are_the_same_showers(tmp_path, options):
    fields = events(11)
    compound(tmp_path / "events.h5", fields, **options)
    datasets(tmp_path / "plain.h5", fields)
    with open_showers(tmp_path / "events.h5") as one, open_showers(tmp_path / "plain.h5") as other:
        assert (one.grid, len(one)) == (other.grid, 11)
        for name in ("energy", "theta", "phi"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.read([7, 0, 3]), other.read([7, 0, 3]))
        np.testing.assert_array_equal(one.hashes(), other.hashes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("incident_phi"), "'events' has no field 'incident_phi' .found showers, incident_energy"),
        (lambda f: f.update(showers=f["showers"][:, 0]), "'showers' of 'events' are .* was expected"),
        (
            lambda f: f.update(incident_energy=np.ones((4, 2))),
            "'incident_energy' of 'events' is .*; one number for each row",
        ),
        (lambda f: f.update(incident_phi=np.array([b"a"] * 4)), "'incident_phi' of 'events' is .*; one number"),
        (lambda f: f["incident_energy"].__setitem__(2, 0), "'events' field 'incident_energy' row 2 is 0"),
        (lambda f: f["incident_theta"].__setitem__(1, 90), "'events' field 'incident_theta' row 1 is 90"),
    ],
)
def test_wrong_events_are_refused(tmp_path, change, message):
    fields = events(4)
    change(fields)
    with pytest.raises(ShowerFileError, match=message):
        open_showers(compound(tmp_path / "events.h5", fields))


def test_layouts_of_other_projects_are_named(tmp_path):
    datasets(tmp_path / "a.h5", {"gen_info": np.ones((5, 3)), "layer_0": np.ones((5, 30))})
    with pytest.raises(ShowerFileError, match=r"a\.h5: 'gen_info' beside 'layer_0' \(5, 30\) looks like"):
        open_showers(tmp_path / "a.h5")


def test_links_to_other_files_are_not_followed(tmp_path):
    """Not even to find out which layout a file keeps."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("showers", "energies", "directions"):
            file[name] = h5py.ExternalLink("elsewhere.h5", name)
    with pytest.raises(ShowerFileError, match="'showers' is a link, and links are not followed"):
        open_showers(tmp_path / "a.h5")


def test_hgcal_files_have_their_published_cells(tmp_path):
    datasets(tmp_path / "SiW_angle_70.h5", {"64": events(3, cells=(18, 50, 45))["showers"]})
    with open_showers(tmp_path / "SiW_angle_70.h5") as file:
        assert (file.grid.dr_mm, file.grid.dz_mm) == (2.325, 3.4)
        assert np.degrees(file.theta[0]) == pytest.approx(70)


@pytest.mark.parametrize(
    ("name", "attributes", "particle"),
    [
        ("a.h5", {"particle": "gamma"}, "gamma"),
        ("a.h5", {"pdg": 22}, "gamma"),
        ("a.h5", {"pdg": np.int32(-11)}, "e+"),
        ("fine_e-.h5", {}, "e-"),
        ("photons_10GeV.h5", {"pdg": 11}, "e-"),
        ("photons_10GeV.h5", {}, "gamma"),
        ("a.h5", {}, None),
    ],
)
def test_the_particle_is_read_from_attributes_or_the_name(tmp_path, name, attributes, particle):
    with h5py.File(datasets(tmp_path / name, events(2)), "r+") as file:
        file.attrs.update(attributes)
    with open_showers(tmp_path / name) as file:
        assert file.particle == particle


def test_convert_adds_what_a_file_does_not_say(tmp_path):
    datasets(tmp_path / "64.h5", {"64": events(3)["showers"]})
    settings = ConvertSettings(to="par04", theta=1.2, phi=-0.5, particle="gamma")
    convert(tmp_path / "64.h5", tmp_path / "out.h5", settings, quiet=True)
    with open_showers(tmp_path / "out.h5") as file:
        assert file.particle == "gamma"
        np.testing.assert_allclose(file.theta, 1.2, rtol=1e-6)
        np.testing.assert_allclose(file.phi, -0.5, rtol=1e-6)
