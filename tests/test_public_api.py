"""The shape of the house: every module says what it is, imports go one way, and all that ships can be used."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import metacalo
from metacalo.base import Base
from metacalo.pretrain import PretrainSettings
from metacalo.showers import Detector, data_folder, open_showers

LAYERS = (
    {
        "metacalo",
        "errors",
        "typing",
        "documents",
        "config",
        "progress",
        "durable",
        "hdf5_access",
        "checkpoint",
        "locking",
        "interruption",
        "parallel",
        "pictures",
        "provenance",
        "ranks",
        "tracking",
        "wording",
    },
    {"showers"},
    {"models"},
    {"generators"},
    {"meta", "evaluate"},
    {"soundness"},
    {"base"},
    {"sampling"},
    {"model"},
    {"comparison", "methods"},
    {"adapt", "generate", "pretrain"},
    {"cli", "__main__"},
)
"""From the ground up: a module imports from its own layer and from those before it."""

MODULES = ["metacalo", *sorted(found.name for found in pkgutil.walk_packages(metacalo.__path__, "metacalo."))]


def layer(module: str) -> int:
    """Position in `LAYERS`; a verb that is not listed stands where `adapt` does."""
    part = module.removeprefix("metacalo.").split(".")[0]
    return next((i for i, names in enumerate(LAYERS) if part in names), len(LAYERS) - 2)


def source(module: str) -> ast.Module:
    path = Path(metacalo.__path__[0], *module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(module: str) -> set[str]:
    """Modules of metacalo that the source imports, wherever in it."""
    found = set()
    for node in ast.walk(source(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {
                name if (name := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names
            }
    return {name for name in found if name.split(".")[0] == "metacalo"}


def test_all_modules_are_found():
    assert {"metacalo.cli", "metacalo.showers.hdf5", "metacalo.meta.engines"} <= set(MODULES)
    assert len(MODULES) > 40


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_is(name):
    module = importlib.import_module(name)
    sentence = (module.__doc__ or "").strip().split("\n\n")[0]
    assert len(sentence) > 20
    assert sentence.endswith((".", ":"))


@pytest.mark.parametrize("name", MODULES)
def test_public_names_resolve_and_are_documented(name):
    module = importlib.import_module(name)
    if not hasattr(module, "__all__"):
        assert [type(node) for node in source(name).body] == [ast.Expr], f"{name}: has content but no __all__"
        return
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert public == "__version__" or not public.startswith("_")
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{public} has no docstring"


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    above = {other for other in imported(name) if layer(other) > layer(name)}
    assert not above, f"{name} imports from a layer above it"


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
    assert {name for name in top if name.startswith("metacalo")} - own == {"metacalo.errors", "metacalo.interruption"}
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
