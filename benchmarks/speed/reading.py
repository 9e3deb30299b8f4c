"""Whether reading keeps up with training: showers a second, memory by the size of the data, and time lost waiting.

    python -m benchmarks.speed reading --out out/input
    python -m benchmarks.speed reading --gigabytes 1 5 20 --out out/input

The showers of a task, turned in phi again and again, are written to files of `--shard-showers` as a task folder holds
them, and copied until the voxels take as many gigabytes (float32, before compression) as wanted. Each size is then read
as `metacalo pretrain` does, in a process of its own: all showers are hashed, the normaliser is fitted, and batches are
drawn from portion after portion; the most memory that was resident is kept, of all and of the drawing. Apart from that,
on the least of the data: CPU seconds of the input pipeline and of a plain step of the diffusion transformer in its
default sizes, and how long training waits for its parts with and without a thread that reads ahead. The copies are
removed at the end; `input.json` has the figures, as far as they are there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import peak_memory, workers
from benchmarks.speed.evaluation import repeated
from metacalo.errors import MetacaloError
from metacalo.generators.base import Batch, bf16
from metacalo.model_folders.base import build_generator, sees_cells
from metacalo.pretraining.plan import base_config
from metacalo.pretraining.settings import PretrainSettings
from metacalo.runtime.progress import track
from metacalo.showers import resolve_task, write_showers
from metacalo.storage.checkpoint import save_json
from metacalo.training_data.episodes import TaskStream
from metacalo.training_data.task_streams import TrainingData, pretraining_tasks, training_data

__all__ = ["lay_out", "main", "memory_of", "rates_of", "waiting_of"]

SETTINGS = PretrainSettings()
BATCH = SETTINGS.train_diffusion.batch
CELLS = sees_cells(SETTINGS.tokenizer, SETTINGS.diffusion)
PARTS = 3  # that are drawn from, so that the second and third are read while there is another one
BATCHES = 8  # of each part, while memory is looked at


def lay_out(folder: Path, task: str, gigabytes: float, per_file: int) -> None:
    """Writes a task folder whose voxels take that many gigabytes, in files of so many showers."""
    with resolve_task(task).open() as file:
        showers = file.load()
    wanted = round(gigabytes * 1e9 / (4 * file.grid.n_voxels))
    first = folder / task / "showers-0000.h5"
    some = repeated(showers, np.arange(len(showers)), min(wanted, per_file))
    order = np.argsort(some.energy)  # as files often are
    write_showers(first, replace(some.select(order), detector=file.detector))
    for number in range(1, round(wanted / len(some))):
        shutil.copy(first, first.with_name(f"showers-{number:04d}.h5"))


def memory_of(folder: Path, capacity: int) -> dict[str, float]:
    """Reads a folder of tasks as pretraining does, and counts showers, seconds, and GiB that were resident at most."""
    began = time.process_time()
    data = _data(folder, capacity)
    prepared = time.process_time() - began
    (stream,), generator, resident = data.streams, torch.Generator().manual_seed(0), 0.0
    for part in range(PARTS):
        stream.drawn = part * capacity
        for _ in range(BATCHES):
            stream.draw(BATCH, generator)
            resident = max(resident, _resident_memory())
    stream.close()
    return {
        "showers": sum(data.counts.values()),
        "preparing_seconds": prepared,
        "drawing_GiB": resident,
        "most_GiB": peak_memory(),
    }


def rates_of(folder: Path, capacity: int, steps: int) -> dict[str, float]:
    """Showers a CPU second: of the parts that are read, the batches that are drawn, both together, and training."""
    data = _data(folder, capacity)
    stream, step, generator = _stream(data, capacity), _training(data), torch.Generator().manual_seed(0)
    read, began = 0, time.process_time()
    for part in range(PARTS):
        stream.drawn = part * capacity
        read += len(stream.draw_rows(1, generator)[0])
    reading = (time.process_time() - began) / read
    drawing = _seconds(lambda: stream.draw(BATCH, generator), steps) / BATCH
    batch = stream.draw(BATCH, generator)
    training = _seconds(lambda: step(batch), steps) / BATCH
    stream.close()
    seconds = {"reading": reading, "drawing": drawing, "input": reading + drawing, "training": training}
    return {name: 1 / value for name, value in seconds.items()}


def waiting_of(folder: Path, capacity: int) -> dict[str, dict[str, float]]:
    """Wall seconds of training on some parts, and those of them in which it waited for a part, by when that is read."""
    data = _data(folder, capacity)
    found, step = {}, _training(data)
    for name, thread in (("when needed", None), ("ahead", ThreadPoolExecutor(1))):
        stream, generator = _stream(data, capacity, thread), torch.Generator().manual_seed(0)
        seconds, waited = 0.0, 0.0
        for part in range(1 + PARTS):
            for index in range(capacity // BATCH):
                asked = time.perf_counter()
                pool, rows = stream.draw_rows(BATCH, generator)
                there = time.perf_counter()
                step(pool.batch(rows, generator))
                if part > 0:  # nothing is before the first one
                    seconds += time.perf_counter() - asked
                    waited += there - asked if index == 0 else 0.0
        found[name] = {"seconds": seconds, "waited": waited}
        stream.close()
    return found


def _data(folder: Path, capacity: int) -> TrainingData:
    return training_data(
        pretraining_tasks([folder], ()), reserve_one_in=SETTINGS.reserve_one_in, capacity=capacity, cells=CELLS
    )


def _stream(data: TrainingData, capacity: int, thread: ThreadPoolExecutor | None = None) -> TaskStream:
    """All showers of the task, read by `thread`, behind the normaliser that was fitted."""
    task, generator = data.streams[0].task, torch.Generator().manual_seed(0)
    normaliser = data.streams[0].draw_rows(1, generator)[0].normaliser
    data.streams[0].close()
    return TaskStream(task, normaliser, np.arange(task.n_showers), capacity, cells=CELLS, thread=thread)


def _training(data: TrainingData) -> Callable[[Batch], None]:
    """A plain step of the diffusion transformer in its default sizes."""
    model = build_generator("diffusion", base_config(SETTINGS, data.grid, data.counts, None)).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    noise = torch.Generator().manual_seed(1)

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        with bf16("cpu", SETTINGS.autocast):
            loss = model.loss(batch, noise)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(model.parameters()), 1.0)
        optimizer.step()

    return step


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds, after a first time."""
    work()
    found = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return median(found)


def _resident_memory() -> float:
    """GiB that this process holds now; what it held at most where the system does not say."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return peak_memory()
    return int(pages.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE") / 2**30


def run(chosen: argparse.Namespace, folder: Path, out: Path) -> dict[str, Any]:
    """All figures, of folders that are made and removed one after another; `out` is written anew with each."""
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(chosen).items()}
    found: dict[str, Any] = {"settings": settings, "memory": {}}
    sizes = sorted(chosen.gigabytes)
    with track("input", len(sizes) + 2) as bar:

        def add(name: str, measure: Callable[..., Any], *given: object, into: dict[str, Any]) -> None:
            with workers(1, chosen.threads) as pool:  # a fresh process each
                into[name] = pool.submit(measure, folder, *given).result()
            save_json(out, found)
            bar.advance()

        for gigabytes in sizes:
            lay_out(folder, chosen.task, gigabytes, chosen.shard_showers)
            add(f"{gigabytes:g}", memory_of, chosen.capacity, into=found["memory"])
            if gigabytes == sizes[0]:
                add("rates", rates_of, chosen.capacity, chosen.steps, into=found)
                add("waiting", waiting_of, chosen.waiting_capacity, into=found)
            shutil.rmtree(folder / chosen.task)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.5], help="of voxels, on the disk one by one")
    parser.add_argument("--task", default="siw")
    parser.add_argument("--shard-showers", type=int, default=8192, help="in one file")
    parser.add_argument("--capacity", type=int, default=SETTINGS.capacity, help="showers of a part")
    parser.add_argument("--waiting-capacity", type=int, default=1024, help="of the parts that training waits for")
    parser.add_argument("--steps", type=int, default=20, help="of which a rate is the median")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args(arguments)
    try:
        chosen.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=chosen.out) as folder:
            found = run(chosen, Path(folder), chosen.out / "input.json")
    except MetacaloError as error:
        Console(stderr=True, soft_wrap=True).print(f"reading: {error}", markup=False)
        raise SystemExit(2) from None
    for table in _tables(found):
        Console().print(table)


def _tables(found: dict[str, Any]) -> list[Table]:
    memory = Table(
        "GB of voxels", "showers trained on", "preparing [CPU s]", "drawing [GiB]", "most [GiB]", title="memory"
    )
    for gigabytes, row in found["memory"].items():
        figures = (f"{row['preparing_seconds']:.0f}", f"{row['drawing_GiB']:.2f}", f"{row['most_GiB']:.2f}")
        memory.add_row(gigabytes, f"{row['showers']:,.0f}", *figures)
    rates = Table("", "showers / CPU s", "of training", title="rates")
    for name, rate in found["rates"].items():
        rates.add_row(name, f"{rate:.0f}", f"{rate / found['rates']['training']:.2f}")
    waiting = Table("parts are read", "training [s]", "of it waiting [s]", "", title="waiting (wall)")
    for name, row in found["waiting"].items():
        share = f"{100 * row['waited'] / row['seconds']:.1f} %"
        waiting.add_row(name, f"{row['seconds']:.1f}", f"{row['waited']:.2f}", share)
    return [memory, rates, waiting]


if __name__ == "__main__":
    main()
