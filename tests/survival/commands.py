"""The commands that `tests.survival` kills, on so little that they take seconds."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metacalo.model_folders.adapted import load_model
from metacalo.model_folders.base import Base
from metacalo.showers import open_showers
from metacalo.storage.checkpoint import load_json, load_tensors, tensor_hash
from tests.samples import write_task

__all__ = ["Command", "metacalo_commands"]

SHOWERS = 60  # of a task
TRIALS = 3  # of a sweep

RECIPE = """
name = "tiny"
tasks = ["{tasks}"]
minutes_between_states = 0.0
[tokenizer]
patch = [9, 16, 15]
width = 12
blocks = 1
quantizer = {{ size = 8, code_width = 4 }}
[prior]
width = 12
blocks = 1
heads = 2
rank = 1
embedding = 2
bins = 8
[diffusion.dit]
patch = [9, 16, 15]
width = 12
blocks = 1
heads = 2
rank = 1
embedding = 2
[train_tokenizer]
steps = 55
batch = 6
[train_ar]
steps = 55
batch = 6
[train_diffusion]
steps = 55
batch = 6
[meta]
start = 0.95
tasks = 2
inner_steps = 1
support = 2
query = 2
"""


SPACE = "".join(
    f"[{name}]\nchoices = [{value}]\n" for name, value in {"method": '"bias"', "steps": 5, "sampler_steps": 1}.items()
)
"""Of a sweep: its trials are all the same, or a lost one, which takes a number, would change what the next ones try."""


@dataclass(frozen=True)
class Command:
    """A command line that writes one file or folder.

    Attributes:
        name: of the command.
        line: what is run, without the name of the result.
        fingerprint: hash of a result, equal for equal ones; raises what it likes where the result is not complete.
        result: name of what it writes.
        resume: what is added when it is given again.
        changed: what is added to make another result, which is there before.
        force: what is added so that another result is replaced.
        beside: what else it leaves.
    """

    name: str
    line: tuple[str, ...]
    fingerprint: Callable[[Path], str]
    result: str = "result"
    resume: tuple[str, ...] = ()
    changed: tuple[str, ...] = ("--seed", "2")
    force: tuple[str, ...] = ("--force",)
    beside: tuple[str, ...] = ()

    def first(self, folder: Path) -> list[str]:
        """The command that is killed."""
        return [*self.line, *self.force, "--out", str(folder / self.result)]

    def other(self, folder: Path) -> list[str]:
        """The command that makes the old result."""
        return [*self.first(folder), *self.changed]

    def again(self, folder: Path) -> list[str]:
        """The command that goes on."""
        return [*self.first(folder), *self.resume]


def metacalo_commands(folder: Path) -> list[Command]:
    """The commands, and in `folder` what they need: two tasks of a few showers, a tiny base, and a model made from it.

    A command more is a `Command` more in the list.
    """
    metacalo = (sys.executable, "-m", "metacalo.cli")
    tasks, recipe, base, model = (folder / name for name in ("tasks", "tiny.toml", "base", "model"))
    for name in ("siw", "pbwo4"):
        write_task(tasks, name, SHOWERS)
    recipe.write_text(RECIPE.format(tasks=tasks), encoding="utf-8")
    pretrain = (*metacalo, "pretrain", "--config", str(recipe))
    settings = folder / "adapt.toml"
    settings.write_text("steps = 10\ncompared_showers = 20\nshots = 40\n", encoding="utf-8")
    showers = tasks / "pbwo4" / "showers.h5"
    adapt = (*metacalo, "adapt", "--quiet", "--config", str(settings), "--base", str(base), "--detector", str(showers))
    parts = folder / "generate.toml"
    parts.write_text("part_size = 100\nshowers = 450\n", encoding="utf-8")
    generate = (*metacalo, "generate", "--quiet", "--config", str(parts), "--model", str(model), "--base", str(base))
    trials, space = folder / "sweep.toml", folder / "space.toml"
    trials.write_text(f"shots = 40\ntrials = {TRIALS}\nheartbeat = 0.2\ncompared_showers = 0\n", encoding="utf-8")
    space.write_text(SPACE, encoding="utf-8")
    sweep = (*metacalo, "sweep", "--quiet", "--config", str(trials), "--space", str(space), "--base", str(base))
    subprocess.run([*pretrain, "--out", str(base)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*adapt, "--out", str(model)], check=True)
    return [
        Command("pretrain", pretrain, lambda path: Base.load(path).hash, resume=("--resume",)),
        Command("adapt", adapt, lambda path: _of_model(path, base)),
        Command("generate", generate, _of_showers, result="showers.h5", resume=("--resume",)),
        Command(
            "sweep",
            (*sweep, "--detector", str(showers)),
            lambda path: _of_sweep(path, base),
            changed=("--seed", "2", "--study", "other"),
            beside=("result.work",),
        ),
    ]


def _of_model(path: Path, base: Path) -> str:
    load_model(path, base=base)  # whether it is complete
    files = sorted(path.glob("*.safetensors"))
    return tensor_hash(
        {f"{file.stem}/{name}": tensor for file in files for name, tensor in load_tensors(file)[0].items()}
    )


def _of_sweep(path: Path, base: Path) -> str:
    found, page = load_json(path / "sweep.json"), (path / "sweep.html").read_text(encoding="utf-8")
    assert found["ended"] == TRIALS, "not all trials"
    assert page.rstrip().endswith("</html>"), "half of a report"
    return _of_model(path, base)


def _of_showers(path: Path) -> str:
    with open_showers(path) as file:
        showers = file.load()
    return hashlib.sha256(showers.hashes().tobytes() + showers.theta.tobytes() + showers.phi.tobytes()).hexdigest()
