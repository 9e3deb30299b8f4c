"""Submit files of batch systems: shells read them, and every option that they give exists."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
import typer

from metacalo.cli import app

FOLDER = Path(__file__).parents[1] / "docs" / "batch"
FILES = sorted(path.name for path in FOLDER.iterdir())
COMMAND = re.compile(r"\bmetacalo (pretrain|sweep|adapt|generate) ((?:[^\n]|(?<=\\)\n)*)")


def commands(text: str) -> list[tuple[str, set[str]]]:
    """Commands of metacalo in a file, and the options that they are given."""
    message = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [(name, set(re.findall(r"(--[a-z][a-z-]*)", rest))) for name, rest in COMMAND.findall(message)]


def test_both_systems_have_both_jobs() -> None:
    assert {"pretrain.slurm", "pretrain.sub", "sweep.slurm", "sweep.sub"} <= set(FILES)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".slurm", ".sh"))])
def test_a_shell_reads_it(name: str) -> None:
    done = subprocess.run(["bash", "-n", str(FOLDER / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "set -euo pipefail" in (FOLDER / name).read_text()


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("pretrain.sub", "storage.sh")])
def test_its_options_exist(name: str) -> None:
    found = commands((FOLDER / name).read_text())
    assert found
    group = typer.main.get_command(app)
    for command, options in found:
        if command == "sweep" and importlib.util.find_spec("metacalo.sweep") is None:
            pytest.skip("this version has no sweep")
        completed = group.resolve_command(typer.Context(group), [command])[1]  # with the options of its settings
        assert options <= {option for parameter in completed.params for option in parameter.opts}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".slurm")])
def test_it_asks_slurm_for_what_there_is(name: str) -> None:
    asked = re.findall(r"^#SBATCH --([a-z-]+)", (FOLDER / name).read_text(), flags=re.MULTILINE)
    assert set(asked) <= {
        "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "time", "requeue", "output",
        "array",
    }  # fmt: skip
    assert {"time", "mem", "cpus-per-task"} <= set(asked)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".sub")])
def test_condor_finds_every_macro(name: str) -> None:
    text = (FOLDER / name).read_text()
    defined = set(re.findall(r"^(\w+)\s*=", text, flags=re.MULTILINE)) | {"ClusterId", "ProcId"}
    assert set(re.findall(r"(?<!\$ENV)\$\((\w+)\)", text)) <= defined
    assert re.search(r"^queue( \$\(workers\))?$", text, flags=re.MULTILINE)


def test_the_script_that_condor_starts_is_given_what_it_takes() -> None:
    text = (FOLDER / "pretrain.sub").read_text()
    arguments = re.search(r"^arguments\s*= (.*)$", text, flags=re.MULTILINE)
    assert arguments is not None
    assert len(arguments[1].split()) == 3
    assert "executable              = docs/batch/pretrain.sh" in text
