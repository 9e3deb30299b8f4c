"""What a run costs and how its losses fall: JSON lines and TensorBoard while it goes on, a summary with its result."""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from metacalo.errors import MetacaloError, MissingExtraError
from metacalo.runtime.distributed import Ranks
from metacalo.storage.checkpoint import atomic_file

__all__ = ["WATTS_PER_CORE", "Clock", "RunLog", "require_tensorboard"]

WATTS_PER_CORE = 10.0
"""Assumed power of a busy CPU core with its share of memory and fans, in W: servers of 32 to 128 cores at 250 to 700 W
under load draw 5 to 11 W for each. An estimate in want of a meter, and a setting of every run."""

_GIB = 2**30


class Clock:
    """Counts the seconds, processor seconds and energy of a run, over all its processes and interruptions.

    Energy is processor seconds times assumed watts per core, and for GPUs their power, read whenever `read` is called,
    times the seconds since it was last. Where the driver reports no power, energy is left out.

    Args:
        watts_per_core: see `WATTS_PER_CORE`.
        device: where the run computes.
        ranks: its processes.
    """

    def __init__(self, watts_per_core: float = WATTS_PER_CORE, device: str = "cpu", ranks: Ranks | None = None) -> None:
        self._watts, self._ranks = watts_per_core, Ranks() if ranks is None else ranks
        self._device = torch.device(device)
        self._gpu_joules = 0.0
        self._before: dict[str, float] = {}
        self._started = self._read = time.monotonic()
        self._worked = time.process_time()

    def go_on(self, before: Mapping[str, float]) -> None:
        """Adds what a run had cost before it was interrupted."""
        self._before = dict(before)

    def read(self) -> dict[str, float]:
        """The cost so far; all processes must ask together.

        `seconds` on the clock of the wall, `cpu_seconds` and `energy_Wh` of all processes, `peak_memory_GiB` of the
        largest, `processes`, and on GPUs `peak_gpu_memory_GiB` and `gpu_energy_Wh` (0 where power cannot be read).
        """
        now, worked = time.monotonic(), time.process_time() - self._worked
        self._gpu_joules += _gpu_watts(self._device) * (now - self._read)
        self._read = now
        worked, gpu_joules = self._ranks.total([worked, self._gpu_joules])
        gpu_peak = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else 0
        found = {"seconds": now - self._started, "cpu_seconds": worked}
        found["energy_Wh"] = (worked * self._watts + gpu_joules) / 3600
        if self._device.type == "cuda":
            found["gpu_energy_Wh"] = gpu_joules / 3600
        found = {name: value + self._before.get(name, 0.0) for name, value in found.items()}
        peaks = {"peak_memory_GiB": _peak_resident() / _GIB}
        if self._device.type == "cuda":
            peaks["peak_gpu_memory_GiB"] = gpu_peak / _GIB
        peaks = {name: max(value, self._before.get(name, 0.0)) for name, value in peaks.items()}
        return {**found, **peaks, "processes": float(self._ranks.world)}


@dataclass
class RunLog:
    """Lines of one part of a run (a stage, a generator), in `<folder>/log.jsonl` and as TensorBoard scalars beside it.

    Without a folder nothing is written. A log that cannot be written ends with one warning, and the run goes on.

    Attributes:
        folder: of the lines; None = no log.
        every: steps between two lines.
    """

    folder: Path | None = None
    every: int = 10

    def __post_init__(self) -> None:
        self._board: Any = None

    def begin(self, step: int) -> None:
        """Cuts what a run had written after `step`, from which it now goes on."""
        self._try(lambda: self._begin(step))

    def due(self, step: int, last: int) -> bool:
        """Whether a line belongs after that step, of `last` steps."""
        return step % self.every == 0 or step == last

    def write(self, step: int, **figures: float | str) -> None:
        """One line; those of the figures that are numbers are scalars."""
        self._try(lambda: self._write(step, figures))

    def close(self) -> None:
        """Flushes what TensorBoard holds."""
        if self._board is not None:
            self._try(self._board.close)

    def _try(self, write: Callable[[], object]) -> None:
        if self.folder is None:
            return
        try:
            write()
        except (OSError, MetacaloError) as error:
            warnings.warn(f"{self.folder}: the log ends here, the run goes on ({error})", stacklevel=2)
            self.folder = None

    def _begin(self, step: int) -> None:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = self.folder / "log.jsonl"
        kept = [line for line in _lines(lines) if line["step"] <= step] if step else []
        with atomic_file(lines) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        if step == 0:
            for old in self.folder.glob("events.out.tfevents.*"):
                old.unlink()
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import, and most runs have no log

        self._board = SummaryWriter(str(self.folder), purge_step=step + 1)

    def _write(self, step: int, figures: Mapping[str, float | str]) -> None:
        assert self.folder is not None
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"step": step, **figures}) + "\n")
        for name, value in figures.items():
            if not isinstance(value, str):
                self._board.add_scalar(name, value, step)


def require_tensorboard() -> None:
    """Asked before long work, not in it.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise MissingExtraError("--log-dir needs TensorBoard, which is not installed: pip install 'metacalo[tracking]'")


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; one that was half written when the run was killed is left out."""
    found = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                found.append(json.loads(line))
    return found


def _peak_resident() -> int:
    """Largest resident memory of this process so far, in bytes (the system reports KiB, macOS bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _gpu_watts(device: torch.device) -> float:
    """Power that the GPU draws now; 0 where there is none, or the driver's Python library (NVML) is not installed."""
    if device.type != "cuda":
        return 0.0
    try:
        return torch.cuda.power_draw(device) / 1000
    except (ModuleNotFoundError, ImportError, RuntimeError, OSError):
        return 0.0
