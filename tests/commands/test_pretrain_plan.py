"""`metacalo pretrain --dry-run`: the plan, and nothing else."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from metacalo.pretraining.plan import plan_pretraining
from metacalo.pretraining.settings import PretrainSettings
from metacalo.showers import data_folder, discover_tasks, training_tasks

Command = Callable[..., object]
RECIPE = data_folder("pretrained") / "base-no-pblar.toml"


def rows(out: str) -> dict[str, list[str]]:
    """First cell to the others, of all tables."""
    lines = [line for line in out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.parametrize("engine", ["torch", "learn2learn"])
def test_the_plan_of_a_run(command: Command, tmp_path: Path, engine: str) -> None:
    if engine == "learn2learn" and importlib.util.find_spec("learn2learn") is None:
        pytest.skip("learn2learn is not installed; `make learn2learn` installs it")
    wanted = ("--algorithm", "cavia", "--engine", engine, "--holdout", "pblar", "--out", tmp_path / "x")
    ran = command("pretrain", *wanted, "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    message = rows(ran.out)
    assert message["algorithm"] == ["cavia"]
    assert message["engine"] == [engine]
    assert message["ar"][0] == message["diffusion"][0] == "context"
    assert message["ar"][1] == "16"
    left = {task.name for task in training_tasks(discover_tasks(), ("pblar",))}
    assert {name for name in discover_tasks() if name in message} == left
    assert list(tmp_path.iterdir()) == []


def test_steps_episodes_and_tasks(command: Command, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        "holdout = ['pblar']\n[train_tokenizer]\nsteps = 30\n[train_ar]\nsteps = 101\nbatch = 32\n[train_diffusion]\n"
        "steps = 7\n[meta]\nalgorithm = 'anil'\nstart = 0.5\ninner_steps = 3\nsupport = 5\nquery = 9\nwindows = 0.25\n"
        "task_exponent = 0.0\n"
    )
    ran = command("pretrain", "--config", recipe, "--algorithm", "reptile", "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    message = rows(ran.out)
    assert message["tokenizer"] == ["30", "30", "64", "0"]
    assert [cells for cells in table(ran.out, "stage") if cells[0] == "ar"] == [["ar", "101", "51", "32", "50"]]
    assert [cells for cells in table(ran.out, "stage") if cells[0] == "diffusion"] == [
        ["diffusion", "7", "4", "64", "3"]
    ]
    assert message["algorithm"] == ["reptile"]  # the option wins, the rest of the table stays
    assert message["inner steps"] == ["3 of rate 0.02"]
    assert message["support set"] == ["3 x 5 showers"]
    assert message["query set"] == ["9 other showers"]
    assert message["windows"][0].startswith("25% of the episodes, 50% of the range of ln E")
    left = training_tasks(discover_tasks(), ("pblar",))
    assert f"{len(left)} tasks, of whose showers one in 10 is kept out of training" in ran.out
    for task in left:
        showers, probability, energy, angle = message[task.name]
        assert showers == str(task.n_showers)
        assert probability == f"{1 / len(left):.2%}"
        low, high = (float(end) for end in energy.split(" - "))
        assert 0.9 <= low < high <= 110
        assert all(0 <= float(end) <= math.pi / 2 for end in angle.split(" - "))
    assert list(tmp_path.iterdir()) == [recipe]


def test_a_tiny_run_of_few_steps(command: Command) -> None:
    ran = command("pretrain", "--preset", "tiny", "--max-steps", 20, "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    for stage in (["tokenizer", "20", "20", "16", "0"], ["ar", "20", "16", "16", "4"]):
        assert stage in table(ran.out, "stage")
    assert "4 tasks" in ran.out
    assert len([name for name in rows(ran.out) if name in discover_tasks()]) == 4


def table(out: str, header: str) -> list[list[str]]:
    """Rows of the table whose first column has that header."""
    lines = out.splitlines()
    start = next(
        i for i, line in enumerate(lines) if line.startswith("┃") and line.strip("┃").split("┃")[0].strip() == header
    )
    body = lines[start + 2 :]
    end = next(i for i, line in enumerate(body) if not line.startswith("│"))
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in body[:end]]


def test_shares_of_the_parameters() -> None:
    """The sizes of the shipped recipe: embedding, heads and adapters of its two generators."""
    shares = {}
    for algorithm in ("fomaml", "anil", "cavia", "multitask"):
        settings = PretrainSettings.from_toml(RECIPE, compile=False, meta={"algorithm": algorithm})
        plan = plan_pretraining(settings)
        shares[algorithm] = {each.name: each.inner / each.trainable for each in plan.generators}
        assert sum(task.probability for task in plan.tasks) == pytest.approx(1)
    assert shares["multitask"] == {"ar": 0, "diffusion": 0}
    assert shares["cavia"]["ar"] < 1e-4
    assert 0.01 < shares["fomaml"]["ar"] < 0.05
    assert shares["anil"]["ar"] > shares["fomaml"]["ar"]


def test_a_base_to_go_on_from_gives_the_sizes(command: Command) -> None:
    ran = command("pretrain", "--initial", "base-no-pblar", "--stage", "ar", "--algorithm", "multitask", "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    assert [cells[0] for cells in table(ran.out, "stage")] == ["ar"]
    ((name, subspace, inner, trainable, share),) = table(ran.out, "generator")
    assert (name, subspace, inner, share) == ("ar", "-", "0", "0%")
    assert int(trainable.replace(",", "")) > 1_000_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--algorithm", "reptyle"), "did you mean 'reptile'?"),
        (("--engine", "torhc"), "did you mean 'torch'?"),
        (("--holdout", "pblr"), "did you mean 'pblar'?"),
        (("--stage", "tokeniser"), "did you mean 'tokenizer'?"),
        (("--initial", "bse"), "did you mean 'base'?"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(
    refused: Callable[..., str], arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refused("pretrain", *arguments, "--dry-run")
