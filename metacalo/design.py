"""`metacalo design`: from a detector's description to its fast simulation and what that is worth, in one go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

from pydantic import Field

from metacalo.adapt import AdaptSettings, adapt
from metacalo.config import Seed, Settings
from metacalo.errors import ConfigError, OutputError
from metacalo.evaluate import EvaluateSettings, evaluate_files
from metacalo.generate import GenerateSettings, generate
from metacalo.model_folders.adapted import seen_hashes
from metacalo.model_folders.provenance_card import card_of
from metacalo.runtime.signals import note_on_interrupt
from metacalo.showers.tasks import description_path
from metacalo.simulate.prepare import prepare
from metacalo.simulate.run import SimulateSettings, require_geant4, simulate
from metacalo.storage.checkpoint import load_json, require_free, save_json
from metacalo.storage.locking import sole_writer

__all__ = ["Design", "DesignSettings", "design"]


class DesignSettings(Settings):
    """Settings of all steps; numbers of showers and the seed are given once, for all of them."""

    showers: int = Field(default=400, ge=2, description="shots to simulate and adapt to")
    reference: int = Field(
        default=200, ge=20, description="showers to simulate besides, for the report to compare with"
    )
    seed: Seed = 1
    simulate: SimulateSettings = SimulateSettings()
    adapt: AdaptSettings = AdaptSettings()
    generate: GenerateSettings = GenerateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()


@dataclass(frozen=True)
class Design:
    """A finished design.

    Attributes:
        out: the folder: `showers.h5`, `model/`, a file of each generator, `report/`.
        metrics: of the report, see `evaluate_files`.
        seconds: of each step, in this call; those that were finished before are not in it.
    """

    out: Path
    metrics: dict[str, Any]
    seconds: dict[str, float]

    def sentence(self) -> str:
        """What was done."""
        steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in self.seconds.items())
        total = sum(self.seconds.values())
        return f"report {self.out / 'report' / 'report.html'}   model {self.out / 'model'}   {total:.0f} s ({steps})"


def design(
    detector: str | Path,
    out: str | Path,
    settings: DesignSettings | None = None,
    *,
    force: bool = False,
    resume: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    command: str = "",
) -> Design:
    """Simulates showers of a detector.toml, adapts to them, generates as many as are left, and compares these.

    Each step is what its own command does, and writes its result when it is complete; a run that was interrupted goes
    on with the step that it was at.

    Args:
        detector: a detector.toml, or the name of a task.
        out: folder to write.
        settings: see `DesignSettings`.
        force: replace an existing `out`.
        resume: go on with an unfinished run.
        quiet: draw no bars of the simulation.
        verbose: leave what Geant4 prints on standard error.
        command: recorded with the results.

    Raises:
        ConfigError: another run than this one is to be resumed.
        OutputError: `out` exists and neither `force` nor `resume`, or another process is writing it.
        MetacaloError: see `simulate`, `adapt`, `generate` and `evaluate_files`.
    """
    settings, out, detector = settings or DesignSettings(), Path(out), description_path(detector)
    made = settings.simulate.model_copy(
        update={"showers": settings.showers + settings.reference, "seed": settings.seed}
    )
    require_geant4(prepare(detector, beam=made.beam, physics=made.physics))  # fails before anything is removed
    kept = f"finished steps and showers are kept in {out}; go on with the same command and --resume"
    with sole_writer(out, force=force or resume), note_on_interrupt(kept):
        _open(out, settings, detector, force=force, resume=resume)
        seconds = _run_steps(detector, out, settings, made, quiet=quiet, verbose=verbose, command=command)
    return Design(out, load_json(out / "report" / "metrics.json"), seconds)


def _run_steps(
    detector: str | Path,
    out: Path,
    settings: DesignSettings,
    made: SimulateSettings,
    *,
    quiet: bool,
    verbose: bool,
    command: str,
) -> dict[str, float]:
    """Does what is not done yet; seconds of each step."""
    shots, model, report = out / "showers.h5", out / "model", out / "report"
    seconds: dict[str, float] = {}

    def step(name: str, result: Path, do: Callable[[], object]) -> None:
        if not result.exists():
            started = time.perf_counter()
            do()
            seconds[name] = time.perf_counter() - started

    step("simulate", shots, lambda: simulate(detector, shots, made, resume=True, quiet=quiet, verbose=verbose))
    fitted = settings.adapt.model_copy(update={"shots": settings.showers, "seed": settings.seed})
    step("adapt", model, lambda: adapt(shots, model, fitted, quiet=quiet, command=command))
    files = {name: out / f"{name}.h5" for name in fitted.generators or ("frozen",)}
    for name, path in files.items():
        like = {"conditions": str(shots), "unseen_by": str(model), "generator": name, "seed": settings.seed}
        wanted = settings.generate.model_copy(update=like)
        step(name, path, lambda path=path, wanted=wanted: generate(model, path, wanted))  # type: ignore[misc]
    step(
        "evaluate",
        report,
        lambda: evaluate_files(
            list(files.values()),
            shots,
            report,
            cards={name: card_of(path) for name, path in files.items()},
            seen_hashes=seen_hashes(model),
            settings=settings.evaluate.model_copy(update={"seed": settings.seed}),
            command=command,
        ),
    )
    return seconds


def _open(out: Path, settings: DesignSettings, detector: Path, *, force: bool, resume: bool) -> None:
    record, description = out / "design.json", detector.read_text(encoding="utf-8")
    wanted = {"detector": description, "settings": settings.model_dump(mode="json")}
    if resume and record.is_file() and not force:
        if load_json(record) != wanted:
            raise ConfigError(f"{record}: the unfinished design had other settings; resume with the same ones")
        return
    require_free(out, force)
    if out.exists() and not record.is_file():
        raise OutputError(f"{out}: is no design, and --force replaces nothing else; choose another --out")
    if out.exists():
        rmtree(out)
    save_json(record, wanted)
