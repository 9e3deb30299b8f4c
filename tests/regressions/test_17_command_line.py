"""The command line: options come from the settings, one thing has one name, help is complete and fast."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest
import typer

from metacalo import __version__
from metacalo.cli import app
from metacalo.cli.help_panels import PANELS
from metacalo.cli.settings_options import Commands, SettingsOptions
from metacalo.showers import open_showers
from tests.conftest import Ran

COMMANDS = [name for names in PANELS.values() for name in names]


def completed(name):
    """A command with all its options, as it is run."""
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    return group.resolve_command(typer.Context(group), [name])[1]


def test_version(process):
    assert process("--version") == Ran(0, f"metacalo {__version__}\n", "")


def test_help_loads_nothing_heavy_and_shows_adapt_first():
    code = (
        "import sys; from metacalo.cli import app\n"
        "try: app(['--help'])\n"
        "finally: print(*sorted({'torch', 'numpy', 'h5py', 'pydantic', 'matplotlib'} & set(sys.modules)), 'heavy')"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout
    assert shown.rstrip().splitlines()[-1].strip() == "heavy"
    order = [found[1] for line in shown.splitlines() if (found := re.match(r"│ ([a-z]+) {2,}", line))]
    assert order == COMMANDS
    assert all(panel in shown for panel in PANELS)
    assert "--show-completion" in shown


def test_every_command_stands_in_a_panel():
    assert sorted(completed(name).name for name in COMMANDS) == sorted(typer.main.get_command(app).commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name):
    parameters = [found for found in completed(name).params if not getattr(found, "hidden", False)]
    assert "--quiet" in {flag for found in parameters for flag in found.opts}
    assert [found.name for found in parameters if not getattr(found, "help", None)] == []


@pytest.fixture
def help_of(command):
    """What `--help` says of a command, on one line."""
    return lambda name: " ".join(command(name, "--help").out.replace("│", " ").split())


def test_defaults_and_choices_are_those_of_the_settings(help_of):
    shown = help_of("generate")
    assert "One of ar, diffusion, frozen. [default: diffusion]" in shown
    assert "[default: 1:100]" in shown
    shown = help_of("adapt")
    assert "[default: 400]" in shown
    assert "[default: conditioning+bias]" in shown


def test_settings_become_options_by_type():
    found = {
        found.name: found for found in SettingsOptions("metacalo.scoring.scores:ScoreSettings").parameters(["at_most"])
    }
    assert "at_most" not in found
    assert (found["times"].default, found["unseen"].default, found["seed"].default) == (32, False, 1)
    settings = importlib.import_module("metacalo.scoring.scores").ScoreSettings
    assert set(found) == set(settings.model_fields) - {"at_most"}


def test_the_config_wins_over_defaults_and_options_over_the_config(command, tmp_path):
    (tmp_path / "settings.toml").write_text('showers = 3\nenergy = "7"\n')
    model = ("generate", "--model", "base-no-pblar", "--detector", "pblar", "--sampler-steps", 1)
    out = tmp_path / "out.h5"
    given = ("--config", tmp_path / "settings.toml", "--showers", 2, "--out", out, "--quiet")
    assert command(*model, *given) == Ran(0, "", "")
    with open_showers(out) as file:
        assert file.energy.tolist() == [7000.0, 7000.0]  # two, not three; of 7 GeV, not 1 to 100


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("convert", "siw", "--to", "par04", "--showers", 1), "--to is now --format"),
        (
            ("evaluate", "--generated", "no.h5", "--reference", "siw", "--max-showers", 20),
            "--max-showers is now --showers",
        ),
        (("score", "--model", "none", "--showers", "no.h5"), "metacalo score no.h5"),
        (("score", "no.h5", "--model", "none", "--at-most", 20), "--at-most is now --showers"),
        (("tasks", "--folder", "none"), "--folder is now --tasks"),
        (("generate", "--model", "none", "--steps", 2), "--steps is now --sampler-steps"),
        (("export", "--model", "none", "--steps", 2), "--steps is now --sampler-steps"),
        (("design", "none.toml"), "DETECTOR is now --detector"),
        (("design", "--detector", "none.toml", "--reference", 20), "--reference is now --reference-showers"),
    ],
)
def test_old_spellings_work_with_a_warning(old, new, command, tmp_path):
    out = () if old[0] == "tasks" else ("--out", tmp_path / "out.h5")
    message = command(*old, *out).err.splitlines()
    assert message[0].startswith("warning: ")
    assert new in message[0]
    assert (tmp_path / "out.h5").exists() == (old[0] == "convert")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "siw", "--out", "x.h5", "--format", "par4"), "metacalo: --format = 'par4' is not valid: "),
        (("generate", "--model", "none", "--sampler-steps", 0), "metacalo: --sampler-steps = 0 is not valid: "),
        (
            ("evaluate", "--generated", "a", "--reference", "b", "--showers", 0),
            "metacalo: --showers = 0 is not valid: ",
        ),
        (("pretrain", "--algorithm", "mamll"), "metacalo: --algorithm = 'mamll' is not valid: "),
    ],
)
def test_what_is_wrong_is_named_as_it_was_typed(arguments, message, refused):
    assert refused(*arguments).startswith(message)


def test_an_option_of_another_name_than_its_key_tells_the_key(help_of):
    assert "Key in a --config file: steps." in help_of("generate")


def test_what_is_missing_is_named(refused):
    assert refused("convert", "siw", "--out", "x.h5") == "metacalo: --format is missing; give it\n"
    assert refused("design") == "metacalo: --detector is missing; give it\n"
