"""What the outer loop buys: scratch, multi-task + each method, each algorithm + best method, on held-out detectors.

    python -m benchmarks.meta --budget 60m --out out/meta

Every held-out detector has a start of its own, trained on the mixed batches of all others, from which each algorithm
goes on over episodes for the same time. Then rows are measured, seed by seed, until the budget is spent; `--resume`
goes on with the same settings and a new budget. Held-out detectors are worked on side by side. The budget is of work
(CPU seconds over threads; on a GPU, of time): on a busy machine it takes longer. Half of it is for training, two fifths
of that for the starts. Since normalisers are fitted first, and a row costs what it costs, a small budget (under 42
minutes for each core) is for a smaller study: fewer detectors and showers to train on, fewer algorithms, numbers of
shots and seeds. It shows what is measured, from bases that are hardly trained. What options ask for comes first.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measuring import seconds_of_work, workers
from benchmarks.meta.row import BOUND, FROM_SCRATCH, Detector, Wanted, measure
from benchmarks.meta.table import markdown, pictures
from benchmarks.meta.training import BASELINE, StudySettings, TrainedBase, given_start, trained_bases
from metacalo.adaptation.methods import Method
from metacalo.errors import ConfigError, MetacaloError
from metacalo.meta.algorithms import ALGORITHMS
from metacalo.normaliser.preprocessing import PreprocessingName
from metacalo.showers.tasks import Task, resolve_task
from metacalo.storage.checkpoint import atomic_file, load_json, save_json

__all__ = ["parser", "planned", "seconds_of", "settings_of"]

_UNITS = {"s": 1, "m": 60, "h": 3600}
_TRAINING, _START = 0.5, 0.4
_FITTING, _FIT_SECONDS = 0.2, 10.0  # share of the budget for the normalisers of the training detectors; of each of them
_FEWEST, _MANY = 6, 50  # training detectors; with fewer than many, the study is
_SMALL_TRAINING = 0.25  # for its steps; finding out how many there are, and compiling, takes a part that is not small
_SMALL: Mapping[str, Any] = {
    "algorithms": (BASELINE, "fomaml", "anil"),
    "shots": (0, 50, 400),
    "seeds": (1,),
    "capacity": 400,
    "compile": False,
}


def seconds_of(budget: str) -> float:
    """Seconds of '90s', '10m', '1h' or '1.5h'.

    Raises:
        ConfigError: it is none of these.

    Example:
        >>> seconds_of("10m")
        600.0
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", budget)
    if not match or not float(match[1]):
        raise ConfigError(f"--budget {budget}: a number with s, m or h is needed, such as 10m")
    return float(match[1]) * _UNITS[match[2]]


def planned(heldout: str, settings: StudySettings) -> Iterator[Wanted]:
    """The rows of a held-out detector, seed by seed: first the algorithms, which differ least, the baseline before the
    others; then training from scratch, the bound and the methods.

    Shots that leave less than half of the wanted showers to compare with are left out.
    """
    best, n_showers = settings.best_method, _task(heldout, settings).n_showers
    possible = [shots for shots in settings.shots if n_showers - shots >= settings.showers // 2]
    draws = [(shots, seed) for seed in settings.seeds for shots in possible]
    others = [algorithm for algorithm in settings.algorithms if algorithm != BASELINE]
    scratch = [name for name, preprocessing in FROM_SCRATCH.items() if _can(settings.generator, preprocessing)]
    algorithms = [(BASELINE, best), *((algorithm, best) for algorithm in others)]
    beside: list[tuple[str, Method]] = [*((name, "full") for name in scratch), (BOUND, best)]
    beside += [(BASELINE, method) for method in settings.methods if method != best]
    for arms, least in ((algorithms, 0), (beside, 1)):
        for shots, seed in draws:
            if shots >= least:
                yield from (Wanted(heldout, algorithm, method, shots, seed) for algorithm, method in arms)


def _can(generator: str, preprocessing: PreprocessingName) -> bool:
    """Whether a generator can be trained behind it: the usual preprocessing has no tokenizer."""
    return generator == "diffusion" or preprocessing == "tables"


def _task(heldout: str, settings: StudySettings) -> Task:
    return resolve_task(heldout, *([settings.data] if settings.data else []))


def study(heldout: str, settings: StudySettings, out: Path, seconds: float) -> None:
    """Trains the bases of a held-out detector, and measures its rows until so many seconds of work are over.

    `<out>/<heldout>.json` is written anew after every row, and holds the rows of earlier runs.
    """
    begun = seconds_of_work(settings.device)
    file = out / f"{heldout}.json"
    found: dict[str, Any] = load_json(file) if file.exists() else {"bases": {}, "rows": {}}
    trained: dict[str, TrainedBase] = {}
    for name, base in trained_bases(heldout, settings, out / "bases" / heldout):
        trained[name] = base
        found["bases"][name] = {"steps": base.steps, "seconds": base.seconds, "inner_rate": base.inner_rate}
        save_json(file, found)
    detector = Detector(_task(heldout, settings), trained[BASELINE].base, settings)
    for wanted in planned(heldout, settings):
        if seconds_of_work(settings.device) - begun > seconds:
            break
        if wanted.key in found["rows"]:
            continue
        row = measure(wanted, trained.get(wanted.algorithm, trained[BASELINE]), detector, settings)
        found["rows"][wanted.key] = row
        save_json(file, found)


def collected(settings: StudySettings, out: Path, command: str) -> dict[str, Any]:
    """The results of all held-out detectors, and the rows that are still missing."""
    parts = {name: load_json(out / f"{name}.json") for name in settings.heldout if (out / f"{name}.json").exists()}
    rows = {key: row for part in parts.values() for key, row in part["rows"].items()}
    wanted = [row for name in settings.heldout for row in planned(name, settings)]
    return {
        "command": command,
        "settings": settings.model_dump(mode="json"),
        "bases": {name: part["bases"] for name, part in parts.items()},
        "rows": {row.key: rows[row.key] for row in wanted if row.key in rows},
        "missing": [row.key for row in wanted if row.key not in rows],
    }


def _starts(given: Sequence[str]) -> dict[str, str]:
    """Task to base, of TASK=BASE each."""
    for pair in given:
        if "=" not in pair:
            raise ConfigError(f"--start {pair}: TASK=BASE is needed, such as pblar=base-no-pblar")
    return dict(pair.split("=", 1) for pair in given)


def settings_of(arguments: argparse.Namespace, seconds: float) -> StudySettings:
    """Settings of a new study, with so many seconds for each held-out detector."""
    detectors = max(_FEWEST, int(_FITTING * seconds / _FIT_SECONDS))
    small = detectors < _MANY
    given = {
        "heldout": arguments.heldout,
        "data": arguments.data,
        "detectors": arguments.detectors or (detectors if small else None),
        "capacity": arguments.capacity,
        "start": _starts(arguments.start) or None,
        "recipe": arguments.recipe,
        "generator": arguments.generator,
        "shots": arguments.shots,
        "few_shots": None if arguments.few_shots is None else {"draws": arguments.few_shots},
        "seeds": arguments.seeds,
        "showers": arguments.showers,
        "device": arguments.device,
    }
    given = {name: value for name, value in given.items() if value is not None}
    planned = {**_SMALL, **given} if small and arguments.config is None else given
    training = (_SMALL_TRAINING if small else _TRAINING) * seconds
    algorithms = len(planned.get("algorithms", ALGORITHMS))
    planned["start_seconds"] = _START * training
    planned["algorithm_seconds"] = (1 - _START) * training / algorithms
    return StudySettings.resolve(arguments.config, **planned)


def _run(arguments: argparse.Namespace) -> None:
    out, record = Path(arguments.out), Path(arguments.out) / "settings.json"
    budget = seconds_of(arguments.budget)
    if arguments.jobs is not None and arguments.jobs < 1:
        raise ConfigError(f"--jobs {arguments.jobs}: 1 or more is needed")
    if record.exists() and not arguments.resume:
        raise ConfigError(f"{out}: holds a study already; give --resume to go on with it, or another --out")
    begun = StudySettings.build(load_json(record), source=str(record)) if record.exists() else None
    heldout = arguments.heldout if begun is None else begun.heldout
    jobs = min(arguments.jobs or len(heldout), len(heldout))
    seconds = budget / -(-len(heldout) // jobs)  # one after another, jobs at a time
    settings = settings_of(arguments, seconds) if begun is None else begun
    if begun is None:
        for name in settings.heldout:  # asked before long work
            _task(name, settings)
            given_start(name, settings)
        out.mkdir(parents=True, exist_ok=True)
        save_json(record, settings.model_dump(mode="json"))
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    work = partial(study, settings=settings, out=out, seconds=seconds)
    with workers(jobs, threads) as pool:
        list(pool.map(work, settings.heldout))
    result = collected(settings, out, f"python -m benchmarks.meta {shlex.join(sys.argv[1:])}")
    save_json(out / "table.json", result)
    with atomic_file(out / "table.md") as temporary:
        temporary.write_text(markdown(result), encoding="utf-8")
    pictures(result, out)
    Console(soft_wrap=True, highlight=False).print(
        f"{len(result['rows'])} rows, {len(result['missing'])} missing: {out}"
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--budget", default="60m", help="work of each core, such as 10m or 1h; training has half of it")
    made.add_argument("--heldout", nargs="+", default=["pblar", "pbwo4"], help="tasks, each with bases of its own")
    made.add_argument("--data", help="folder of tasks in place of those that ship")
    made.add_argument("--detectors", type=int, help="to train on, at most (by the budget)")
    made.add_argument("--capacity", type=int, help="showers of each, at most (by the budget)")
    made.add_argument("--start", nargs="+", default=[], metavar="TASK=BASE", help="bases to start from")
    made.add_argument("--recipe", help="TOML of `metacalo pretrain`, for the sizes of the networks")
    made.add_argument("--generator", choices=("ar", "diffusion"))
    made.add_argument("--few-shots", type=int, metavar="N", help="normalisers of few showers of each task")
    made.add_argument("--shots", type=int, nargs="+")
    made.add_argument("--seeds", type=int, nargs="+")
    made.add_argument("--showers", type=int, help="generated, and of the reference, at most (1000)")
    made.add_argument("--config", help="TOML of the study: algorithms, methods, episodes and more")
    made.add_argument("--device", help="cpu or cuda")
    made.add_argument("--jobs", type=int, help="held-out detectors side by side (all)")
    made.add_argument("--resume", action="store_true", help="go on with the study in --out")
    made.add_argument("--out", default="out/meta")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the study."""
    try:
        _run(parser().parse_args(arguments))
    except MetacaloError as error:
        Console(stderr=True, soft_wrap=True).print(f"meta: {error}", markup=False)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
