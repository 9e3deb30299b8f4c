"""What an outer step costs: time and memory by inner steps, order and subspace, beside a plain step of the same batch.

    python -m benchmarks.speed outer-step --base base --out out/cost

Each configuration runs in a process of its own, whose peak memory is taken. A plain step is a forward and backward pass
over all showers of the meta-batch at once. Below: throughput of training and of sampling, bfloat16 against single
precision, and fused attention against the plain formula, which is the one that can be differentiated twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.measuring import peak_memory, seconds_of_work, workers
from metacalo.errors import MetacaloError
from metacalo.generators.base import Batch, ShowerGenerator, bf16
from metacalo.meta.algorithms import resolve_algorithm
from metacalo.meta.engines import resolve_engine
from metacalo.model_folders.adapted import zero_shot
from metacalo.model_folders.base import resolve_base
from metacalo.models.subspaces import SubspaceName
from metacalo.runtime.progress import track
from metacalo.showers.tasks import resolve_task
from metacalo.storage.checkpoint import atomic_file, save_json
from metacalo.training_data.episodes import Episode
from metacalo.training_data.shower_pool import ShowerPool

EPISODES, SUPPORT, QUERY = 2, 16, 16
SAMPLED = 100  # showers, at one time


class Case(NamedTuple):
    """One configuration.

    Attributes:
        kind: plain, sample, or the name of an algorithm.
        generator: ar or diffusion.
        inner_steps: of the meta-batch, also where the step is plain.
        subspace: None where there is no inner loop.
        half: bfloat16 matrix products.
        fused: fused attention, where it can be had.
        engine: takes the inner steps.
    """

    kind: str
    generator: str
    inner_steps: int = 2
    subspace: SubspaceName | None = None
    half: bool = True
    fused: bool = True
    engine: str = "torch"


def cases(generators: Sequence[str], inner_steps: Sequence[int], engines: Sequence[str]) -> list[Case]:
    """All that is measured."""
    found = []
    for name in generators:
        for k in inner_steps:
            found.append(Case("plain", name, k))
            found += [Case(kind, name, k, "adapters") for kind in ("fomaml", "maml")]
        whole: tuple[SubspaceName, ...] = ("context", "head", "low-rank", "conditioning+bias", "full")
        found += [Case("maml", name, 2, subspace) for subspace in whole]
        found += [Case("maml", name, 2, "adapters", engine=engine) for engine in engines if engine != "torch"]
        found += [Case("plain", name), Case("plain", name, half=False), Case("maml", name, 2, "adapters", half=False)]
        found += [Case("plain", name, fused=False), Case("sample", name), Case("sample", name, half=False)]
    return list(dict.fromkeys(found))


def measure(case: Case, base: str, task: str, device: str, repeats: int) -> dict[str, Any]:
    """Least seconds of the repeats (after one that warms up), showers per second and peak memory of this process."""
    run, showers = _prepared(case, base, task, device)
    times = []
    for _ in range(1 + repeats):
        started = seconds_of_work(device)
        run()
        times.append(seconds_of_work(device) - started)
    seconds = min(times[1:])  # what other programs do to caches only lengthens it
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else peak_memory()
    return {**case._asdict(), "seconds": seconds, "showers_per_second": showers / seconds, "GiB": peak}


def _prepared(case: Case, base_name: str, task_name: str, device: str) -> tuple[Callable[[], object], int]:
    base, task = resolve_base(base_name), resolve_task(task_name)
    model = base.generator(case.generator).to(device)
    n = EPISODES * (case.inner_steps * SUPPORT + QUERY)
    with task.open() as file:
        normaliser = zero_shot(base, task.detector).normaliser
        pool = ShowerPool(file.load(np.arange(n)), normaliser, task.detector, cells=model.sees_cells)
    noise = torch.Generator().manual_seed(1)
    attention = nullcontext if case.fused else (lambda: sdpa_kernel(SDPBackend.MATH))
    if case.kind == "sample":
        conditions = pool.batch(torch.arange(SAMPLED) % len(pool), noise).conditions.to(device)

        def sampled() -> None:
            with bf16(device, case.half), attention():
                model.sample(conditions, noise)

        return sampled, SAMPLED
    model.train()
    step = _plain(model, pool, device) if case.kind == "plain" else _outer(case, model, pool, device)

    def stepped() -> None:
        model.zero_grad(set_to_none=True)
        with bf16(device, case.half), attention():
            step(noise)

    return stepped, n


def _plain(model: ShowerGenerator, pool: ShowerPool, device: str) -> Callable[[torch.Generator], object]:
    batch = pool.batch(torch.arange(len(pool)), torch.Generator().manual_seed(2)).to(device)
    return lambda noise: torch.autograd.backward(model.loss(batch, noise))


def _outer(case: Case, model: ShowerGenerator, pool: ShowerPool, device: str) -> Callable[[torch.Generator], object]:
    draw = torch.Generator().manual_seed(2)
    episodes = []
    for rows in torch.split(torch.arange(len(pool)), case.inner_steps * SUPPORT + QUERY):
        parts: list[Batch] = [pool.batch(part, draw) for part in torch.split(rows, SUPPORT)]
        episodes.append(Episode("cost", tuple(parts[:-1]), parts[-1]).to(device))
    engine, kind = resolve_engine(case.engine), resolve_algorithm(case.kind)
    algorithm = kind(model, engine, rate=0.1, subspace=case.subspace)
    return lambda noise: algorithm.step(episodes, noise)


def markdown(result: dict[str, Any]) -> str:
    """Two tables: outer steps beside plain ones, and what numbers and attention cost."""
    rows = result["rows"]
    lines = [
        "# Cost of meta-learning",
        "",
        f"    {result['command']}",
        "",
        f"{result['device']}, {result['threads']} threads, the fastest of some steps. A meta-batch has {EPISODES} "
        f"episodes of K x {SUPPORT} support and {QUERY} query showers; `x plain`: over a plain step of as many.",
        "",
        "| generator | step | order | subspace | engine | K | seconds | x plain | GiB |",
        "|---|---|---|---|---|---:|---:|---:|---:|",
    ]
    plain = {(r["generator"], r["inner_steps"]): r for r in rows if _default(r, "plain")}
    for row in rows:
        if row["kind"] == "sample" or not (row["half"] and row["fused"]):
            continue
        outer = row["kind"] != "plain"
        names = (row["kind"], "second" if row["kind"] == "maml" else "first", row["subspace"], row["engine"])
        cells = names if outer else ("plain", "-", "-", "-")
        ratio = row["seconds"] / plain[row["generator"], row["inner_steps"]]["seconds"]
        lines.append(
            f"| {row['generator']} | {' | '.join(map(str, cells))} | {row['inner_steps']} | {row['seconds']:.3f} | "
            f"{ratio:.2f} | {row['GiB']:.2f} |"
        )
    lines += ["", "| generator | what | numbers | attention | showers/s | GiB |", "|---|---|---|---|---:|---:|"]
    for row in rows:
        outer = row["kind"] not in ("plain", "sample")
        if row["inner_steps"] != 2 or (outer and (row["engine"] != "torch" or row["subspace"] != "adapters")):
            continue
        numbers, attention = "bfloat16" if row["half"] else "single", "fused" if row["fused"] else "formula"
        attention = "formula" if row["kind"] == "maml" else attention
        lines.append(
            f"| {row['generator']} | {row['kind']} | {numbers} | {attention} | {row['showers_per_second']:.0f} | "
            f"{row['GiB']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _default(row: dict[str, Any], kind: str) -> bool:
    return bool(row["kind"] == kind and row["half"] and row["fused"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, one case after the other, and writes table.json and table.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="base")
    parser.add_argument("--task", default="siw", help="whose showers the batches hold")
    parser.add_argument("--generator", nargs="+", default=["ar", "diffusion"])
    parser.add_argument("--inner-steps", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--engine", nargs="+", default=["torch", "higher"], help="learn2learn is an optional extra")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", default="out/cost")
    chosen = parser.parse_args(arguments)
    rows = []
    wanted = cases(chosen.generator, chosen.inner_steps, chosen.engine)
    try:
        resolve_base(chosen.base), resolve_task(chosen.task)
        for case in _tracked(wanted):
            # a fresh process for each: memory that was once taken is never given back
            with workers(1, chosen.threads) as pool:
                of_case = (case, chosen.base, chosen.task, chosen.device, chosen.repeats)
                rows.append(pool.submit(measure, *of_case).result())
    except MetacaloError as error:
        Console(stderr=True, soft_wrap=True).print(f"meta_cost: {error}", markup=False)
        raise SystemExit(2) from None
    given = arguments if arguments is not None else sys.argv[1:]
    result = {"command": f"python -m benchmarks.speed outer-step {' '.join(given)}", "rows": rows}
    result |= {"device": chosen.device, "threads": chosen.threads}
    out = Path(chosen.out)
    out.mkdir(parents=True, exist_ok=True)
    save_json(out / "table.json", result)
    with atomic_file(out / "table.md") as temporary:
        temporary.write_text(markdown(result), encoding="utf-8")
    Console(soft_wrap=True, highlight=False).print(f"{len(rows)} cases: {out / 'table.md'}")


def _tracked(wanted: Sequence[Case]) -> Iterator[Case]:
    """The cases, with a bar."""
    with track("cost", len(wanted)) as bar:
        for case in wanted:
            yield case
            bar.advance()


if __name__ == "__main__":
    main()
