"""Generation through the command: conditions, formats, seeds, and showers that may stand in for Geant4's."""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest

from metacalo.showers import data_folder, open_showers, resolve_task

GENERATORS = ("ar", "diffusion")


@pytest.fixture
def generated(adapted, command, tmp_path):
    """The showers that `metacalo generate` with those options writes, checked as a user would."""

    def run(*options, model=adapted.out, out="showers.h5"):
        path = tmp_path / out
        ran = command("generate", "--model", model, "--out", path, *options)
        assert (ran.code, ran.out, ran.err) == (0, f"showers written to {path}\n", "")
        with open_showers(path) as file:
            return file.load()

    return run


def test_one_energy_in_a_process_of_its_own(adapted, process, tmp_path):
    path = tmp_path / "showers.h5"
    ran = process("generate", "--model", adapted.out, "--out", path, "--energy", 10, "--showers", 20)
    assert (ran.code, ran.out, ran.err) == (0, f"showers written to {path}\n", "")
    with open_showers(path) as file:
        assert (len(file), file.convention) == (20, "par04")
        assert set(file.energy) == {10_000.0}
        np.testing.assert_allclose(file.theta, math.pi / 2, atol=1e-6)
        assert not file.phi.any()


def test_range_of_energies_and_angles(generated):
    options = ("--energy", "1:100", "--theta", "1.2:1.9", "--phi", "-3:3", "--showers", 60)
    showers = generated(*options)
    for values, low, high in ((showers.energy, 1e3, 1e5), (showers.theta, 1.2, 1.9), (showers.phi, -3, 3)):
        assert low <= values.min() < low + 0.2 * (high - low)
        assert high - 0.4 * (high - low) < values.max() <= high
    assert 0.3 < np.mean(showers.energy < 1e4) < 0.7, "log-uniform: as many below 10 GeV as above"


@pytest.mark.parametrize("name", GENERATORS)
def test_showers_are_like_those_of_the_detector(adapted, generated, pblar, sample, name):
    showers = generated("--generator", name, "--conditions", sample, "--showers", 40)
    voxels = showers.showers
    assert voxels.shape == (40, *pblar.showers.shape[1:])
    assert showers.detector == pblar.detector
    assert np.isfinite(voxels).all()
    assert (voxels >= 0).all()
    hit = voxels > 0
    assert voxels[hit].min() >= adapted.model.normaliser.threshold * (1 - 2e-3)
    assert 0.02 < hit.mean() < 0.9
    assert voxels.sum((1, 2, 3)).min() > 0
    response = voxels.sum((1, 2, 3), dtype=np.float64) / showers.energy
    assert response.mean() == pytest.approx(1, abs=0.1)


def test_conditions_unseen_by_a_model_leave_its_shots_out(adapted, generated, pblar, sample):
    showers = generated("--conditions", sample, "--unseen-by", adapted.out)
    unseen = np.setdiff1d(np.arange(len(pblar)), adapted.metrics["shots"]["rows"])
    assert len(unseen) == 60
    for name in ("energy", "theta", "phi"):
        np.testing.assert_array_equal(getattr(showers, name), getattr(pblar, name)[unseen])


def test_calochallenge_format_holds_the_same_showers(generated, pblar, tmp_path):
    options = ("--energy", "5:50", "--theta", "1.3", "--showers", 5)
    plain = generated(*options)
    flat = generated(*options, "--format", "calochallenge", out="flat.h5")
    with h5py.File(tmp_path / "flat.h5") as file:
        assert file["showers"].shape == (5, 6480)
        assert file["incident_energies"].shape == (5, 1)
        r, phi, z = 2, 5, 11
        np.testing.assert_array_equal(file["showers"][:, r + 9 * (phi + 16 * z)], plain.showers[:, r, phi, z])
    for name in ("showers", "energy", "theta", "phi"):
        np.testing.assert_array_equal(getattr(flat, name), getattr(plain, name))
    assert flat.detector == pblar.detector


@pytest.mark.parametrize("name", GENERATORS)
def test_the_seed_decides_the_showers(generated, name):
    options = ("--generator", name, "--energy", "5:50", "--showers", 4)
    first = generated(*options, "--seed", 3, out="a.h5")
    again = generated(*options, "--seed", 3, out="b.h5")
    other = generated(*options, "--seed", 4, out="c.h5")
    np.testing.assert_array_equal(first.energy, again.energy)
    np.testing.assert_array_equal(first.showers, again.showers)
    assert not np.isin(first.energy, other.energy).any()
    assert not (first.hashes()[:, None] == other.hashes()).any()
    assert len(np.unique(first.hashes())) == 4


def test_the_file_says_where_it_comes_from(generated, tmp_path):
    generated("--showers", 2, "--seed", 9)
    with h5py.File(tmp_path / "showers.h5") as file:
        assert (file.attrs["generator"], file.attrs["model"], file.attrs["seed"]) == ("diffusion", "model", 9)
        assert file.attrs["absorber_material"] == "Pb"
        assert file["showers"].attrs["units"] == "MeV"
    assert [path.name for path in tmp_path.iterdir()] == ["showers.h5"]


@pytest.mark.filterwarnings("default::metacalo.detectors.condition_range.OutsideRangeWarning")
def test_the_warning_is_one_line_of_a_successful_run(adapted, command, tmp_path):
    path = tmp_path / "showers.h5"
    ran = command("generate", "--model", adapted.out, "--out", path, "--energy", 0.5, "--showers", 2, "--quiet")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.startswith(
        "warning: 2 of 2 showers have energies outside 1.01 to 91.8 GeV, the range of the 60 shots"
    )
    assert ran.err.count("\n") == 1
    with open_showers(path) as file:
        assert file.energy.tolist() == [500.0, 500.0]
        assert np.isfinite(file.read(slice(None))).all()


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("message", ["task", "toml", "file"])
def test_a_base_at_zero_shots(generated, base, pblar, sample, message, name):
    toml = data_folder("tasks") / "pblar" / "detector.toml"
    detector = {"task": "pblar", "toml": toml, "file": sample}[message]
    options = ("--detector", detector, "--generator", name, "--conditions", sample, "--showers", 5)
    showers = generated(*options, model=base.path if message == "file" else base.config.name)
    assert showers.detector == pblar.detector
    assert showers.showers.sum((1, 2, 3)).min() > 0


def test_zero_shots_follow_the_detector(generated, base):
    """Without a shot, two detectors' showers fit Geant4's of the same detectors better than crosswise."""
    maps, wanted, n = {}, {}, 240  # 60 differ as much by chance as the detectors do
    for name in ("siw", "pbwo4"):
        task = resolve_task(name)
        options = ("--detector", name, "--conditions", task.path, "--showers", n)
        showers = generated(*options, model=base.config.name, out=f"{name}.h5").showers.sum((0, 2))
        with task.open() as file:
            geant4 = file.read(slice(0, n)).sum((0, 2))
        maps[name], wanted[name] = showers / showers.sum(), geant4 / geant4.sum()
    off = {(made, real): np.abs(maps[made] - wanted[real]).sum() for made in maps for real in wanted}
    assert off["siw", "siw"] + off["pbwo4", "pbwo4"] < 0.8 * (off["siw", "pbwo4"] + off["pbwo4", "siw"])


def test_a_prior_without_chance_takes_the_likeliest(generated):
    """At temperature 0 as with a single candidate; the decoder still draws."""
    options = ("--generator", "ar", "--energy", 10, "--showers", 12)
    message = {"plain": (), "cold": ("--temperature", 0), "one": ("--top-k", 1)}
    made = {name: generated(*options, *more, out=f"{name}.h5") for name, more in message.items()}
    np.testing.assert_array_equal(made["one"].showers, made["cold"].showers)
    assert (made["plain"].showers != made["cold"].showers).any((1, 2, 3)).all()
    assert len(np.unique(made["cold"].hashes())) == 12
