"""The shape of the house: every module says what it is, imports go one way, and all that ships can be used."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import metacalo
from metacalo.model_folders.base import Base
from metacalo.pretrain import PretrainSettings
from metacalo.showers import Detector, data_folder, open_showers

LAYERS = """
errors typing            | the ground
storage                  | what is on disk is complete or absent
config                   | settings
runtime                  | a run: bars, signals, threads, processes, log, words, pictures
detectors                | a calorimeter, described by its physics
showers                  | files of showers
ntuples                  | ROOT ntuples of Par04
normaliser               | showers to normal latents and back
models                   | pure networks
generators               | loss, sample, adaptable, frozen
training_data            | batches and episodes of many tasks
evaluate meta            | showers against Geant4's; the outer loop
model_folders            | a base, and what adaptation made of it
adaptation pretraining   | what moves; what is trained, and how
inspection scoring       | verbs with tables of their own
convert generate simulate export sharing | verbs
adapt pretrain           | verbs that use others
benchmark design sweep   | verbs that adapt
reproduction             | any verb again
cli __main__             | parses, calls, prints
"""
"""From the ground up: a package or module imports from its own line and from those before it; all are listed."""

ROOMS = [line.partition("|")[0].split() for line in LAYERS.strip().splitlines()]
MODULES = ["metacalo", *sorted(found.name for found in pkgutil.walk_packages(metacalo.__path__, "metacalo."))]
FROZEN = Path(__file__).with_name("public_api.txt")


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "metacalo"


def layer(module: str) -> int:
    """Its line of `LAYERS`; the package itself, which has the version and the verbs' names, is the ground."""
    return next((i for i, rooms in enumerate([["metacalo"], *ROOMS]) if room(module) in rooms), -1)


def source(module: str) -> ast.Module:
    path = Path(metacalo.__path__[0], *module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(module: str) -> set[str]:
    """Modules of metacalo that the source imports, wherever in it."""
    found = set()
    tree = source(module)
    if module == "metacalo":  # names for type checkers alone; they are loaded when they are used
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {
                name if (name := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names
            }
    return {name for name in found if name.split(".")[0] == "metacalo"}


def public_names() -> str:
    """A line for each module with an `__all__`."""
    lines = []
    for name in MODULES:
        names = getattr(importlib.import_module(name), "__all__", None)
        if names is None:
            assert [type(node) for node in source(name).body] == [ast.Expr], f"{name}: has content but no __all__"
            continue
        assert all(hasattr(importlib.import_module(name), each) for each in names), (
            f"{name}: __all__ names what is not there"
        )
        lines.append(f"{name}: {' '.join(sorted(set(names)))}")
    return "\n".join(lines) + "\n"


def test_public_names_are_those_that_are_written_down():
    """After a wanted change: `python -m tests.test_public_api` writes them anew."""
    assert public_names().splitlines() == FROZEN.read_text(encoding="utf-8").splitlines()


def test_every_package_is_listed_once():
    rooms = [name for line in ROOMS for name in line]
    assert len(rooms) == len(set(rooms))
    assert set(rooms) == {room(name) for name in MODULES} - {"metacalo"}


def test_imports_go_one_way():
    upward = {f"{name} imports {other}" for name in MODULES for other in imported(name) if layer(other) > layer(name)}
    assert not upward


def test_meta_and_evaluate_do_not_know_each_other():
    for name in MODULES:
        if name.startswith("metacalo.evaluate"):
            assert not {other for other in imported(name) if other.startswith("metacalo.meta")}
        if name.startswith("metacalo.meta."):
            assert not {other for other in imported(name) if other.startswith("metacalo.evaluate")}


def test_no_circle_of_imports():
    TopologicalSorter({name: imported(name) for name in MODULES}).prepare()


def test_the_command_line_imports_nothing_heavy_at_its_top():
    nodes = [node for name in MODULES if name.startswith("metacalo.cli") for node in source(name).body]
    top = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    top |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    own = {name for name in top if name.startswith("metacalo.cli")}
    assert {name for name in top if name.startswith("metacalo")} - own == {
        "metacalo.errors",
        "metacalo.runtime.signals",
    }
    assert not {name.split(".")[0] for name in top if name} & {"torch", "numpy", "h5py", "matplotlib"}


DESCRIBED = sorted(path.parent.name for path in data_folder("tasks").glob("*/detector.toml"))


def test_the_four_detectors_ship():
    assert DESCRIBED == ["pblar", "pbwo4", "scipb", "siw"]


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_shipped_detector_is_the_one_its_showers_name(name):
    described = Detector.from_toml(data_folder("tasks") / name / "detector.toml")
    with open_showers(data_folder("tasks") / name / "showers.h5") as file:
        assert file.detector == described


SETTINGS = sorted(path.name for path in data_folder("pretrained").glob("*.toml"))


def test_settings_of_a_base_ship():
    assert "base-no-pblar.toml" in SETTINGS


@pytest.mark.parametrize("name", SETTINGS)
def test_shipped_settings_load(name):
    assert PretrainSettings.from_toml(data_folder("pretrained") / name).name == name.removesuffix(".toml")


def test_shipped_bases_load_and_were_made_with_the_settings_beside_them():
    bases = sorted(path.parent for path in data_folder("pretrained").glob("*/config.json"))
    assert "base-no-pblar" in {path.name for path in bases}
    for path in bases:
        base = Base.load(path)
        assert base.config.name == path.name
        settings = PretrainSettings.from_toml(path.with_name(f"{path.name}.toml"))
        made_with = settings.build(base.config.pretrain)
        for part in ("tokenizer", "prior", "diffusion", "holdout", "seed"):
            assert getattr(made_with, part) == getattr(settings, part), f"{path.name}: {part}"
        for name in base.config.generators:
            base.generator(name)


if __name__ == "__main__":
    FROZEN.write_text(public_names(), encoding="utf-8")
