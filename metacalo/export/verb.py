"""`metacalo export`: a generator as one file for C++, with what is known of it and a macro for Geant4's Par04."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from metacalo import __version__
from metacalo.detectors.detector import Detector
from metacalo.errors import ConfigError, ModelFolderError, OutputError
from metacalo.export.files import require_onnx, write_onnx, write_torchscript
from metacalo.export.graph import ShowerGraph
from metacalo.export.interfaces import INTERFACES, Interface, InterfaceName
from metacalo.export.macro import par04_macro
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.diffusion import Diffusion
from metacalo.generators.sampling_options import SamplingOptions
from metacalo.model_folders.adapted import ShowerModel, load_model
from metacalo.runtime.signals import note_on_interrupt
from metacalo.storage.atomic import finish_set
from metacalo.storage.checkpoint import atomic_set, load_json, require_free, save_json, tensor_hash
from metacalo.storage.locking import sole_writer
from metacalo.typing import PathLike

__all__ = ["ExportSettings", "export"]

OPSETS = (18, 20)
LARGEST_SEED = 2**24  # single precision holds them all, which is what ONNX keeps seeds in


class ExportSettings(SamplingOptions):
    """What is exported, and how it is asked for showers."""

    generator: Literal["ar", "diffusion", "frozen"] = Field(
        default="diffusion", description="which generator of the model is written"
    )
    format: Literal["onnx", "torchscript"] = Field(default="onnx", description="format of the file")
    interface: InterfaceName = Field(
        default="par04", description="inputs and outputs: those of Geant4's example, or named ones with a seed, in MeV"
    )
    opset: int = Field(default=OPSETS[0], description="version of ONNX's operators; 18 runs in ONNX Runtime since 1.14")
    seed: int | None = Field(
        default=None, ge=0, lt=LARGEST_SEED, description="par04 in ONNX: the same noise in every session"
    )

    @field_validator("opset")
    @classmethod
    def _is_known(cls, opset: int) -> int:
        oldest, newest = OPSETS
        if not oldest <= opset <= newest:
            age = "old" if opset < oldest else "new"
            message = f"too {age}: the generators' operators are written in opsets {oldest} to {newest}"
            raise ValueError(message)
        return opset


def export(
    model: PathLike,
    out: PathLike,
    settings: ExportSettings | None = None,
    *,
    base: PathLike | None = None,
    detector: Detector | None = None,
    command: str = "",
    force: bool = False,
) -> Path:
    """Writes the whole generator, from energy and angles to cell energies, into one file.

    `<out>.json` beside it says what it is; `<out>.mac` runs it in Par04, where it has that interface. They take their
    names together. A macro that no export has written, or that was changed since, is never replaced.

    Args:
        model: folder of an adapted model; or a base, with `detector`.
        out: file to write.
        settings: see `ExportSettings`.
        base: where the model's base lies, if not in `pretrained/`.
        detector: of a base at zero shots.
        command: as typed, to be kept.
        force: replace an existing `out`.

    Raises:
        ConfigError: the generator or the sampler cannot be exported.
        DetectorError: the interface has another mesh than the model.
        MissingExtraError: what writes ONNX files is not installed.
        OutputError: `out` exists, another process is writing it, or it cannot be written.
        MetacaloError: see `load_model`.
    """
    settings, out = settings or ExportSettings(), Path(out)
    sidecar, macro = _beside(out)
    _require_exportable(settings)
    if out.parent.is_dir():
        with sole_writer(out):
            _finish(out)
    _require_room(out, settings, force)
    loaded = load_model(model, base=base, detector=detector)
    loaded.require(settings.generator)
    settings.choose(loaded.generators.get(settings.generator))
    _require_no_noise_between(loaded, settings)
    interface = INTERFACES[settings.interface](ShowerGraph(loaded, settings.generator))
    record = {"model": str(model), "command": command, **_record(interface, loaded, settings)}
    kept = f"{out} was not written; give the same command again"
    with sole_writer(out, force=True), note_on_interrupt(kept):
        _require_room(out, settings, force)
        old = [macro] if settings.interface != "par04" and _is_own(macro, sidecar) else []
        with atomic_set(out, stale=old) as folder:
            _writer(settings)(interface, folder / out.name)
            if settings.interface == "par04":
                text = par04_macro(loaded.detector, out.name, settings.format, loaded.known_range).encode()
                (folder / macro.name).write_bytes(text)
                record["macro"] = {"file": macro.name, "sha256": hashlib.sha256(text).hexdigest()}
            save_json(folder / sidecar.name, record)
    return out


def _finish(out: Path) -> None:
    """Completes an export to `out` that was killed when only names were left to be given."""
    try:
        finish_set(out)
    except OSError as error:
        raise OutputError.refused(out, error) from error


def _beside(out: Path) -> tuple[Path, Path]:
    """Names of the sidecar and of the macro."""
    return out.with_name(f"{out.name}.json"), out.with_name(f"{out.name}.mac")


def _require_room(out: Path, settings: ExportSettings, force: bool) -> None:
    sidecar, macro = _beside(out)
    for path in (out, sidecar):
        require_free(path, force)
    if settings.interface == "par04" and macro.exists() and not _is_own(macro, sidecar):
        raise OutputError(
            f"{macro}: exists already and is not the macro of an export, or was changed since; move it or give another "
            "--out"
        )


def _is_own(macro: Path, sidecar: Path) -> bool:
    """Whether an export wrote this macro, and nobody has changed it since."""
    try:
        wanted = load_json(sidecar).get("macro", {}).get("sha256")
        return bool(wanted == hashlib.sha256(macro.read_bytes()).hexdigest())
    except (OSError, ModelFolderError, AttributeError):
        return False


def _require_exportable(settings: ExportSettings) -> None:
    if settings.generator == "frozen":
        message = "a frozen library is showers, not a network, and is not exported; give ar or diffusion as --generator"
        raise ConfigError(message)
    if settings.seed is not None and (settings.interface, settings.format) != ("par04", "onnx"):
        mend = "give the seed as an input" if settings.interface == "named" else "call torch::manual_seed there"
        raise ConfigError(f"--seed is kept in ONNX files of the interface par04 alone; leave it out and {mend}")
    if settings.format == "onnx":
        require_onnx()


def _require_no_noise_between(model: ShowerModel, settings: ExportSettings) -> None:
    generator = model.generator(settings.generator)
    if isinstance(generator, Diffusion) and generator.sampler == "ddpm":
        message = "sampler 'ddpm' draws noise at each of many steps and is not exported; give another --sampler"
        raise ConfigError(message)


def _writer(settings: ExportSettings) -> Callable[[Interface, Path], None]:
    if settings.format == "torchscript":
        return write_torchscript
    return lambda interface, path: write_onnx(interface, path, opset=settings.opset, seed=settings.seed)


def _record(interface: Interface, model: ShowerModel, settings: ExportSettings) -> dict[str, Any]:
    """The sidecar."""
    generator, grid, detector = model.generator(settings.generator), model.detector.grid, model.detector
    known, drawn = model.known_range, dict[str, Any]()
    if isinstance(generator, Diffusion):
        drawn = {"sampler": generator.sampler, "steps": generator.steps}
    elif isinstance(generator, Autoregressive):
        drawn = asdict(generator.sampling)
    return {
        "format": settings.format,
        "interface": {
            "name": settings.interface,
            "inputs": {name: interface.meanings[name] for name in interface.inputs},
            "output": {interface.output: interface.meanings[interface.output]},
        },
        "mesh": {
            "n_r": grid.n_r,
            "n_phi": grid.n_phi,
            "n_z": grid.n_z,
            "dr_mm": grid.dr_mm,
            "dz_mm": grid.dz_mm,
            "phi": "cell i covers [-pi + 2 pi i / n_phi, -pi + 2 pi (i + 1) / n_phi)",
        },
        "detector": detector.to_attributes(),
        "mean_response": model.normaliser.scale,
        "threshold_MeV": model.normaliser.threshold,
        "energy_range_MeV": known.energy_MeV,
        "theta_range_rad": known.theta_rad,
        "phi_range_rad": known.phi_rad,
        "ranges_of": "shots" if model.shots_range else "base",
        "generator": settings.generator,
        "sampling": drawn,
        "base": {"name": model.base.config.name, "hash": model.base.hash},
        "model_hash": tensor_hash({**generator.state_dict(), **model.normaliser.tensors()}),
        "shots": len(model.shots),
        "settings": settings.model_dump(mode="json"),
        "versions": {"metacalo": __version__, "torch": torch.__version__},
    }
