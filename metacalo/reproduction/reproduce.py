"""`metacalo reproduce`: makes a result again from what it says of itself, and compares the two bit for bit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from metacalo.adapt import AdaptSettings, adapt
from metacalo.convert import ConvertSettings, convert
from metacalo.detectors.detector import Detector
from metacalo.detectors.json_record import detector_of
from metacalo.errors import ModelFolderError
from metacalo.evaluate import EvaluateSettings, evaluate_files
from metacalo.generate import GenerateSettings, generate
from metacalo.model_folders.adapted import seen_hashes
from metacalo.model_folders.base import checked_kind, resolve_base
from metacalo.pretrain import PretrainSettings, pretrain
from metacalo.reproduction.fingerprints import fingerprints
from metacalo.scoring.score_report import score_files
from metacalo.scoring.scores import ScoreSettings
from metacalo.storage.provenance import FILE, file_record, load_provenance
from metacalo.sweep.result import SWEEP_FILE
from metacalo.typing import PathLike

__all__ = ["Compared", "Reproduction", "reproduce", "reproduction_table"]


@dataclass(frozen=True)
class Compared:
    """One part of a result, saved and made again: hashes, or values."""

    what: str
    saved: str
    again: str

    @property
    def same(self) -> bool:
        """Whether the two are equal."""
        return self.saved == self.again


@dataclass(frozen=True)
class Reproduction:
    """A result beside the same made again.

    Attributes:
        path: of the result.
        parts: inputs, then what is in the result.
        environment: what differs between the machine or the versions of then and now.
    """

    path: Path
    parts: tuple[Compared, ...]
    environment: tuple[Compared, ...]

    @property
    def same(self) -> bool:
        """Whether all parts of the result are equal; inputs may differ, and are listed."""
        return all(part.same for part in self.parts if not part.what.startswith("input "))


@dataclass(frozen=True)
class _Again:
    """The arguments with which a function is run again."""

    record: Mapping[str, Any]
    out: Path
    detector: str | None
    base: str | None

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.record["settings"])

    @property
    def command(self) -> str:
        return str(self.record.get("command") or "")

    def argument(self, name: str) -> str | None:
        """A path, its `~` written out."""
        found = self.record["arguments"].get(name)
        return None if found is None else _place(found)

    def described(self, name: str) -> Detector | None:
        found = self.record["arguments"].get(name)
        return None if found is None else detector_of(found)


def _place(path: str) -> str:
    return str(Path(path).expanduser()) if path.startswith("~/") else path


def _adapt(again: _Again) -> None:
    base = again.base or _place(again.settings["base"])
    settings = AdaptSettings.build({**again.settings, "base": base})
    detector = again.detector or again.argument("detector") or ""
    adapt(detector, again.out, settings, described=again.described("described"), quiet=True, command=again.command)


def _generate(again: _Again) -> None:
    given = {key: _place(again.settings[key]) for key in ("conditions", "unseen_by") if again.settings.get(key)}
    settings = GenerateSettings.build({**again.settings, **given})
    generate(
        again.argument("model") or "",
        again.out,
        settings,
        base=again.base or again.argument("base"),
        detector=again.described("detector"),
        command=again.command,
    )


def _evaluate(again: _Again) -> None:
    generated = again.record["arguments"]["generated"]
    seen = again.argument("unseen_by")
    evaluate_files(
        [_place(path) for path in generated.values()],
        again.argument("reference") or "",
        again.out,
        labels=list(generated),
        seen_hashes=seen_hashes(seen, base=again.base or again.argument("base")) if seen else None,
        settings=EvaluateSettings.build({**again.settings, "pages": False}),
    )


def _convert(again: _Again) -> None:
    record = again.record["arguments"]
    settings = ConvertSettings.build(again.settings)
    source = again.argument("source") or ""
    convert(source, again.out, settings, group=record["group"], described=again.described("described"))


def _score(again: _Again) -> None:
    score_files(
        again.argument("model") or "",
        again.argument("showers") or "",
        again.out,
        ScoreSettings.build(again.settings),
        against=again.argument("against"),
        base=again.base or again.argument("base"),
        detector=again.described("detector"),
        quiet=True,
    )


def _pretrain(again: _Again) -> None:
    settings = again.settings
    settings["tasks"] = [_place(folder) for folder in settings["tasks"]]
    pretrain(PretrainSettings.build(settings), again.out, command=again.command)


_FUNCTIONS: Final[Mapping[str, Callable[[_Again], None]]] = {
    "adapt": _adapt,
    "generate": _generate,
    "evaluate": _evaluate,
    "convert": _convert,
    "score": _score,
    "pretrain": _pretrain,
}


def reproduce(path: PathLike, *, detector: str | None = None, base: str | None = None) -> Reproduction:
    """Makes a result again into a temporary folder, with its saved settings and inputs, and compares.

    Args:
        path: folder of an adapted model, a base or an evaluation, or HDF5 file of `generate`, `convert` or `score`.
        detector: where the shower file of an adapted model lies now, if not where it was.
        base: where its base lies now.

    Raises:
        ModelFolderError: it has no provenance that could be followed, or an input is not where it was.
        MetacaloError: see the function that made it.
    """
    path = Path(path)
    if not path.exists():
        raise ModelFolderError(f"{path}: there is no such result")
    record = load_provenance(path) or _of_older_model(path, detector)
    function = str(record.get("function"))
    shaped = all(isinstance(record.get(key), dict) for key in ("settings", "arguments", "inputs", "environment"))
    if function not in _FUNCTIONS or not shaped:
        raise ModelFolderError(f"{path}: its provenance names no function of metacalo ({function!r}); make it again")
    parts = [*_inputs(path, record["inputs"], detector), *_base(record, base)]
    with tempfile.TemporaryDirectory(prefix="metacalo-") as folder:
        again = Path(folder) / path.name
        try:
            _FUNCTIONS[function](_Again(record, again, detector, base))
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelFolderError(f"{path}: its provenance is not complete ({error!r}); make it again") from None
        saved, made = fingerprints(path), fingerprints(again)
        now = load_provenance(again) or {}
    # a report's pages are pictures of its figures, and not drawn again
    wanted = saved if function != "evaluate" else {name: value for name, value in saved.items() if name in made}
    # the best trial of a sweep is adapted again; its trials, which several workers may have taken, are not
    wanted = {name: value for name, value in wanted.items() if not name.startswith(f"{SWEEP_FILE}: ")}
    parts += [
        Compared(name, wanted.get(name, "missing"), made.get(name, "missing")) for name in sorted({*wanted, *made})
    ]
    return Reproduction(path, tuple(parts), tuple(_differences(record["environment"], now.get("environment", {}))))


def _of_older_model(path: Path, detector: str | None) -> dict[str, Any]:
    """What can be known of a model that was adapted before there was provenance."""
    if not (path / "config.json").is_file() or checked_kind(path, "adapted", "base")["kind"] == "base":
        raise ModelFolderError(f"{path}: has no provenance; make it again")
    if detector is None:
        raise ModelFolderError(
            f"{path}: has no {FILE}, so that the path and the hash of its shower file "
            "are not known; say where the file lies by --detector, or adapt again"
        )
    config = checked_kind(path, "adapted")
    return {
        "function": "adapt",
        "command": config.get("command"),
        "settings": config.get("adapt"),
        "arguments": {"detector": detector, "described": None},
        "inputs": {},
        "environment": {"metacalo": config.get("version")},
    }


def _inputs(path: Path, inputs: Mapping[str, Any], detector: str | None) -> Iterator[Compared]:
    for name, record in inputs.items():
        if not isinstance(record, dict) or "path" not in record:
            continue
        place = Path(detector if name == "detector" and detector else _place(str(record["path"])))
        if not place.is_file():
            mend = (
                "say where it lies by --detector" if name == "detector" else "put it there, or run from the same folder"
            )
            raise ModelFolderError(f"{path}: its input '{name}', {place}, is not there; {mend}")
        found = file_record(place)
        if record.get("sha256") and found["sha256"]:
            yield Compared(f"input {name}", str(record["sha256"]), str(found["sha256"]))
        else:
            yield Compared(f"input {name}", f"{record.get('size')} bytes", f"{found['size']} bytes")


def _base(made: Mapping[str, Any], base: str | None) -> Iterator[Compared]:
    """The base of an adapted model by its hash, wherever it lies."""
    record, place = made["inputs"].get("base"), base or made["settings"].get("base")
    if made.get("function") == "adapt" and isinstance(record, dict) and "hash" in record and place is not None:
        yield Compared("input base", str(record["hash"]), resolve_base(_place(str(place))).hash)


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Compared]:
    for name in sorted({*then, *now}):
        pair = Compared(name, str(then.get(name, "not recorded")), str(now.get(name, "not recorded")))
        if not pair.same:
            yield pair


def reproduction_table(found: Reproduction) -> Table:
    """Parts with their hashes then and now, and below them what of the environment differs."""
    table = Table("what", "saved", "again", "same", title=escape(str(found.path)))
    for part in (*found.parts, *found.environment):
        name = part.what if part in found.parts else f"environment: {part.what}"
        same = "yes" if part.same else "[bold red]no[/]" if part in found.parts else "no"
        table.add_row(escape(name), *(escape(_short(text)) for text in (part.saved, part.again)), same)
    return table


def _short(text: str) -> str:
    return f"{text[:12]}..." if len(text) == 64 and " " not in text else text
