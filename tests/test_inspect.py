"""An inspection tells what a file holds, by figures computed apart, and every fault that is put into it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacalo.errors import ConfigError, ShowerFileError
from metacalo.inspection import inspection as module
from metacalo.inspection.inspection import Inspection, inspect
from metacalo.showers import Showers, data_folder, write_showers
from metacalo.showers.sample_checks import scale_of
from tests.samples import SIW, shipped

COUNT = 300


@pytest.fixture(scope="module")
def siw() -> Showers:
    return shipped("siw", slice(0, COUNT))


@pytest.fixture(scope="module")
def inspection() -> Inspection:
    return inspect(SIW)


@pytest.fixture
def spoil(tmp_path: Path, siw: Showers) -> Callable[..., Inspection]:
    """Writes the showers as another program would, with some datasets (None: left out) and attributes replaced."""

    def run(attributes: dict | None = None, most: int | None = None, **replaced: np.ndarray | None) -> Inspection:
        path = tmp_path / "spoilt.h5"
        datasets = {
            "showers": siw.showers,
            "incident_energy": siw.energy,
            "incident_theta": siw.theta,
            "incident_phi": siw.phi,
        }
        with h5py.File(path, "w") as file:
            for name, values in (datasets | replaced).items():
                if values is not None:
                    file[name] = values
            file.attrs.update(siw.detector.to_attributes() if attributes is None else attributes)
        return inspect(path, showers=most)

    return run


def test_figures_of_real_showers(inspection: Inspection) -> None:
    every = shipped("siw")
    voxels = every.showers.astype(np.float64)
    response = voxels.sum((1, 2, 3)) / every.energy
    assert (inspection.convention, inspection.showers, inspection.inspected) == ("par04", 1500, 1500)
    assert (inspection.grid, inspection.detector, inspection.assumed) == (every.detector.grid, every.detector, False)
    assert inspection.energy_GeV == (every.energy.min() / 1000.0, every.energy.max() / 1000.0)
    assert inspection.theta == (every.theta.min(), every.theta.max())
    assert inspection.phi == (every.phi.min(), every.phi.max())
    assert inspection.response.mean == pytest.approx(response.mean(), rel=1e-9)
    assert inspection.response.width == pytest.approx(response.std(), rel=1e-9)
    assert inspection.response.scale == "deposits divided by the sampling fraction"
    assert inspection.voxel_MeV == (voxels[voxels > 0].min(), voxels.max())
    assert inspection.occupancy == pytest.approx((voxels > 0).mean())
    np.testing.assert_allclose(inspection.mean_shower, voxels.mean(axis=0), rtol=1e-9)
    assert inspection.problems == ()
    lowest = np.argsort(every.energy)[:500]
    assert inspection.response.by_energy[0][2] == pytest.approx(response[lowest].mean(), rel=1e-6)
    assert inspection.attributes["particle"] == "e-"
    assert not {"dr_mm", "detector", "absorber_material"} & set(inspection.attributes)
    storage = inspection.storage
    assert (storage.dtype, storage.compression, storage.chunks) == ("float16", "gzip", (128, 9, 16, 45))
    assert storage.showers_bytes < storage.file_bytes == SIW.stat().st_size


def test_json_is_json(inspection: Inspection, spoil) -> None:
    plain = json.loads(json.dumps(inspection.as_json(), allow_nan=False))
    assert plain["detector"]["X0_mm"] == pytest.approx(inspection.detector.X0_mm)
    assert sum(plain["profiles"]["longitudinal_MeV"]) == pytest.approx(sum(plain["profiles"]["lateral_MeV"]))
    assert len(plain["profiles"]["lateral_MeV"]) == 9
    poor = spoil(attributes={"odd": h5py.Empty("f")}, incident_energy=None).as_json()
    assert json.loads(json.dumps(poor, allow_nan=False))["response"]["mean"] is None


def test_good_files_of_the_family_have_no_problems() -> None:
    path = data_folder("tasks") / "family" / "showers.h5"
    with h5py.File(path) as file:
        groups = list(file)[::6]
    assert [inspect(path, group=group).problems for group in groups] == [()] * len(groups)


def put(values: np.ndarray, where: object, value: object) -> np.ndarray:
    changed = values.copy()
    changed[where] = value
    return changed


def test_voxels_that_cannot_be_right_are_counted(spoil, siw: Showers) -> None:
    showers = put(siw.showers, (7, 1, 2, slice(3, 6)), np.nan)
    showers[[20, 30, 40, 50, 60, 70], 0, 0, 0] = -1
    showers[11], showers[21] = 0, showers[22]
    found = spoil(showers=showers, incident_energy=put(siw.energy, 21, siw.energy[22]))
    assert found.problems == (
        "6 voxels below 0 (rows 20, 30, 40, 50, 60, ...); set to 0, or drop the rows",
        "3 voxels NaN or infinite (row 7); drop the row",
        "1 shower without a deposit (row 11); drop what is no real miss",
        "1 shower equal to an earlier one (row 22); drop what would count twice",
    )
    right = np.delete(np.arange(COUNT), [7, 20, 30, 40, 50, 60, 70])
    np.testing.assert_allclose(found.mean_shower, showers[right].mean(axis=0, dtype=np.float64), rtol=1e-5)


def test_what_reading_refuses_is_reported_with_row_and_mend(spoil, siw: Showers) -> None:
    found = spoil(incident_energy=put(siw.energy, 5, 0), incident_theta=np.degrees(siw.theta), incident_phi=None)
    energy, theta, phi = found.problems
    assert energy == "'incident_energy' row 5 is 0; an energy above 0 MeV is needed, mend or drop that row"
    assert theta.startswith("'incident_theta' row 0 is ")
    assert "between 0 and 3.142 rad (degrees?)" in theta
    assert phi.startswith("dataset 'incident_phi' is missing")
    assert np.isnan(found.phi).all()
    assert found.theta[1] > 100
    assert found.energy_GeV[0] > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda siw: {"incident_energy": siw.energy / 1000}, "energies seem to be in GeV"),
        (
            lambda siw: {"showers": put(siw.showers, 9, 40 * siw.showers[9])},
            "1 showers deposit more than 20 times their incident energy (row 9)",
        ),
        (lambda siw: {"showers": put(siw.showers, slice(200, 300), siw.showers[200:] / 30)}, "along the file"),
        (lambda siw: {"showers": siw.showers.transpose(0, 1, 3, 2)}, "axes must be (r, phi, z)"),
        (lambda siw: {"showers": siw.showers[:, ::-1]}, "the first cell of r must be the one at the shower's axis"),
        (
            lambda siw: {"attributes": {}},
            "its detector is unknown: adapt needs --absorber and --active",
        ),
        (
            lambda siw: {"attributes": {"active_material": "Si"}},
            "attribute 'absorber_material' is missing beside 'active_material'",
        ),
        (
            lambda siw: {
                "showers": siw.showers[:99],
                **{f"incident_{name}": getattr(siw, name)[:99] for name in ("energy", "theta", "phi")},
            },
            "only 99 showers: 100 and more are needed",
        ),
    ],
)
def test_each_mistake_is_one_problem(spoil, siw: Showers, change, words: str) -> None:
    (problem,) = spoil(**change(siw)).problems
    assert words in problem


def test_files_sorted_by_energy_do_not_drift(spoil, siw: Showers) -> None:
    order = np.argsort(siw.energy)
    columns = {f"incident_{name}": getattr(siw, name)[order] for name in ("energy", "theta", "phi")}
    # a response that falls by a third from low to high energies, as with leakage
    falling = np.linspace(1, 0.67, COUNT, dtype=np.float32)[:, None, None, None]
    assert spoil(showers=siw.showers[order] * falling, **columns).problems == ()


def test_raw_deposits_are_reported(spoil, siw: Showers) -> None:
    found = spoil(showers=siw.showers * np.float32(siw.detector.sampling_fraction))
    assert found.response.scale == "raw deposits in the active material"
    assert found.problems == ()


@pytest.mark.parametrize("name", ["pblar", "scipb", "siw"])
def test_the_scale_follows_the_sampling_fraction(name: str) -> None:
    detector = inspect(data_folder("tasks") / name / "showers.h5", showers=10).detector
    for factor in (0.8, 1.2):
        assert scale_of(factor, detector).startswith("deposits divided")
        assert scale_of(factor * detector.sampling_fraction, detector).startswith("raw deposits")


def test_a_damaged_part_is_reported_and_the_rest_is_counted(tmp_path: Path, siw: Showers) -> None:
    path = tmp_path / "damaged.h5"
    write_showers(path, siw)
    with h5py.File(path) as file:
        chunk = file["showers"].id.get_chunk_info(4)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    found = inspect(path)
    assert (found.showers, found.inspected) == (COUNT, 256)
    (problem,) = found.problems
    assert problem.startswith("'showers' rows 256 to 299: it cannot be read")
    assert problem.endswith("the file is damaged, or still being written: copy it again")


def test_discrete_energies_and_an_assumed_detector(tmp_path: Path, siw: Showers) -> None:
    path = tmp_path / "SciPb_angle_70.h5"
    with h5py.File(path, "w") as file:
        file["64"], file["2"] = siw.showers[:80], siw.showers[80:120]
    found = inspect(path)
    assert (found.convention, found.energies_GeV, found.showers) == ("hgcal", (2.0, 64.0), 120)
    assert (found.detector.name, found.assumed) == ("SciPb", True)
    assert found.theta == pytest.approx((np.radians(70),) * 2)


@given(count=st.integers(1, 3000), most=st.integers(1, 3000))
def test_runs_are_as_many_rows_as_wanted_spread_over_the_file(count: int, most: int) -> None:
    runs = list(module._runs(count, most))
    rows = np.concatenate(runs)
    assert len(rows) == min(count, most)
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < count
    assert max(map(len, runs)) <= module.RUN
    if len(runs) > 1:
        assert (rows[0], rows[-1]) == (0, count - 1)


def test_some_showers_of_many(siw: Showers) -> None:
    found = inspect(SIW, showers=40)
    assert (found.showers, found.inspected) == (1500, 40)
    assert found.energy_GeV == inspect(SIW, showers=1).energy_GeV


@pytest.mark.parametrize("damage", ["text", "no energies", "no rows"])
def test_what_is_no_shower_file_is_refused(tmp_path: Path, siw: Showers, damage: str) -> None:
    path = tmp_path / "bad.h5"
    if damage == "text":
        path.write_text("showers", encoding="utf-8")
    else:
        with h5py.File(path, "w") as file:
            file["voxels" if damage == "no energies" else "showers"] = siw.showers[:0]
    with pytest.raises(ShowerFileError, match=r"bad\.h5: "):
        inspect(path)
    with pytest.raises(ConfigError, match="--showers 0: at least 1"):
        inspect(SIW, showers=0)
