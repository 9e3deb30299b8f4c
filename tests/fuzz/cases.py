"""The cases of the fuzz: what a stranger might send, and the commands and readers that it is given to."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from metacalo.cli import main
from metacalo.errors import MetacaloError
from metacalo.showers import open_showers
from metacalo.storage.checkpoint import load_json
from tests.fuzz.hdf5 import hostile_file
from tests.fuzz.mutations import HOSTILE_NAMES, HOSTILE_TEXTS, mutate_bytes, mutate_value
from tests.fuzz.seeds import BASE, Seeds

__all__ = ["KINDS", "Case"]

_QUICK: Final = ("--no-classifiers", "--no-pages", "--out", "out/x")
_DETECTOR: Final = ("--absorber", "Pb:2.0", "--active", "lAr:4.0")

Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """One hostile input and what is done with it.

    Attributes:
        prepare: writes it into `case/in`.
        call: hands it to a reader or a command, and returns the exit code.
    """

    prepare: Callable[[Path], None]
    call: Callable[[Path], int]


def _command(*arguments: object) -> int:
    """The exit code of `metacalo` with those arguments, in this process."""
    sys.argv = ["metacalo", *map(str, arguments)]
    warnings.simplefilter("always")
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
        return 0 if code == 1 and arguments[0] in ("reproduce", "inspect") else code  # it said that something is wrong
    return 0


def _read(path: Path) -> int:
    """What every command does with a shower file: opens it, reads rows at both ends, hashes some."""
    try:
        with open_showers(path) as file:
            count = len(file)
            file.load(slice(0, min(count, 300)))
            file.read(np.arange(max(0, count - 5), count))
            file.hashes([0, count - 1])
    except MetacaloError as error:
        return _refused(error)
    return 0


def _refused(error: MetacaloError) -> int:
    print(f"metacalo: {str(error)!r}", file=sys.stderr)
    return 2 if str(error).strip() else 71


def _on_showers(path: Path, seeds: Seeds, rng: Rng) -> Callable[[Path], int]:
    """A reader or, for one in five, a command on a shower file."""
    if rng.random() < 0.8:
        return lambda _: _read(path)
    commands: list[tuple[object, ...]] = [
        ("inspect", path, "--showers", 50),
        ("inspect", path, "--json", "--showers", 20),
        ("inspect", path, "--group", "a", "--showers", 20, "--picture", "out/x.png"),
        ("convert", path, "--format", "par04", "--out", "out/x.h5", "--showers", 10),
        ("convert", path, "--format", "calochallenge", "--out", "out/x.h5", "--rows", "0:5", *_DETECTOR),
        ("adapt", "--detector", path, "--base", BASE, "--shots", 10, "--generator", "frozen", "--out", "out/x"),
        ("evaluate", *_QUICK, "--generated", path, "--reference", seeds.real),
        ("generate", "--model", seeds.library, "--generator", "frozen", "--conditions", path, "--out", "out/x.h5"),
        ("tasks", path),
        ("tasks", "--tasks", "in"),
    ]
    chosen = commands[int(rng.integers(len(commands)))]
    return lambda _: _command(*chosen)


def _hdf5_bytes(seeds: Seeds, rng: Rng) -> Case:
    seed = seeds.real if rng.random() < 0.1 else seeds.files[int(rng.integers(len(seeds.files)))]
    path = Path("in", "task", "showers.h5" if rng.random() < 0.3 else seed.name)
    content = mutate_bytes(seed.read_bytes(), rng)
    return Case(lambda case: _write(case / path, content), _on_showers(path, seeds, rng))


def _hdf5_structure(seeds: Seeds, rng: Rng) -> Case:
    path = Path("in", "task", "showers.h5")
    call = _on_showers(path, seeds, rng)
    return Case(lambda case: hostile_file(case / path, HOSTILE_NAMES, rng), call)


def _toml(seeds: Seeds, rng: Rng) -> Case:
    seed = seeds.tomls[int(rng.integers(len(seeds.tomls)))]
    content = _spoilt_text(seed.read_text(encoding="utf-8"), rng)
    path = Path("in", "x.toml")
    if rng.random() < 0.15:
        return Case(lambda case: _odd_file(case / path, rng), _on_toml(path, seeds, rng))
    return Case(lambda case: _write(case / path, content), _on_toml(path, seeds, rng))


def _on_toml(path: Path, seeds: Seeds, rng: Rng) -> Callable[[Path], int]:
    commands: list[tuple[object, ...]] = [
        ("pretrain", "--config", path, "--dry-run", "--out", "out/x"),
        ("adapt", "--detector", seeds.real, "--config", path, "--out", "out/x"),
        ("generate", "--model", seeds.library, "--config", path, "--out", "out/x.h5"),
        ("score", seeds.real, "--model", seeds.model, "--config", path, "--out", "out/x.h5"),
        ("convert", seeds.real, "--format", "par04", "--description", path, "--out", "out/x.h5"),
        ("generate", "--model", BASE, "--detector", path, "--showers", 3, "--out", "out/x.h5"),
    ]
    chosen = commands[int(rng.integers(len(commands)))]
    return lambda _: _command(*chosen)


def _spoilt_text(text: str, rng: Rng) -> bytes:
    kind = rng.random()
    if kind < 0.3:
        return HOSTILE_TEXTS[int(rng.integers(len(HOSTILE_TEXTS)))](text)
    if kind < 0.6:
        return mutate_bytes(text.encode(), rng)
    lines = text.splitlines()
    for _ in range(int(rng.integers(1, 3))):
        at = int(rng.integers(len(lines)))
        key = lines[at].partition("=")[0]
        if "=" in lines[at]:
            message = json.dumps(mutate_value(0, rng))
            lines[at] = f"{key}= {message.replace('NaN', 'nan').replace('Infinity', 'inf').replace('null', '[]')}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _model_folder(seeds: Seeds, rng: Rng) -> Case:
    """One file of a model folder is spoilt; a base's folder where the model is one."""
    source = [seeds.model, seeds.library, seeds.base][int(rng.choice(3, p=[0.5, 0.2, 0.3]))]
    names = sorted(path.name for path in source.iterdir() if path.suffix in {".json", ".safetensors"})
    victim = source / (names[int(rng.integers(len(names)))] if rng.random() < 0.6 else "config.json")
    folder = Path("in", "model")

    def prepare(case: Path) -> None:
        (case / folder).mkdir()
        for path in source.iterdir():
            if path != victim:
                os.link(path, case / folder / path.name) if _same_disk(path, case) else shutil.copy(path, case / folder)
        _spoil(victim, case / folder / victim.name, rng)

    commands: list[tuple[object, ...]] = [
        ("generate", "--model", folder, "--generator", "frozen", "--showers", 4, "--out", "out/x.h5"),
        ("generate", "--model", folder, "--generator", "ar", "--showers", 2, "--out", "out/x.h5"),
        ("generate", "--model", folder, "--detector", "pblar", "--showers", 2, "--out", "out/x.h5"),
        ("generate", "--model", folder, "--generator", "diffusion", "--showers", 2, "--out", "out/x.h5"),
        ("evaluate", *_QUICK, "--generated", seeds.real, "--reference", seeds.real, "--unseen-by", folder),
        ("adapt", "--detector", seeds.real, "--base", folder, "--shots", 10, "--steps", 0, "--out", "out/x"),
        ("reproduce", folder),
    ]
    chosen = commands[int(rng.integers(len(commands)))]
    return Case(prepare, lambda _: _command(*chosen))


def _same_disk(path: Path, case: Path) -> bool:
    return path.stat().st_dev == case.stat().st_dev


def _spoil(source: Path, target: Path, rng: Rng) -> None:
    content = source.read_bytes()
    if rng.random() < 0.15:
        _odd_file(target, rng)
    elif source.suffix == ".json":
        if rng.random() < 0.7:
            value: Any = mutate_value(load_json(source), rng)
            _write(target, json.dumps(value).encode())
        else:
            _write(target, _spoilt_text(content.decode(), rng))
    else:
        _write(target, _spoilt_tensors(content, rng))


def _spoilt_tensors(content: bytes, rng: Rng) -> bytes:
    """A safetensors file with a spoilt header, or spoilt anywhere."""
    size = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + size], content[8 + size :]
    kind = rng.random()
    if kind < 0.3:
        header = mutate_bytes(header, rng)
        return len(header).to_bytes(8, "little") + header + rest
    if kind < 0.7:  # consistent, but with other names, types or shapes
        entries = json.loads(header)
        names = [name for name in entries if name != "__metadata__"]
        entry = entries[names[int(rng.integers(len(names)))]]
        count = int(np.prod(entry["shape"])) if entry["shape"] else 1
        shapes: list[list[int]] = [
            [count],
            [1, count],
            [count, 1],
            [],
            [0],
            [count, 0],
            [2**40, 2**40],
            entry["shape"][::-1],
        ]
        if rng.random() < 0.6:
            entry["shape"] = shapes[int(rng.integers(len(shapes)))]
        else:
            entry["dtype"] = str(rng.choice(["F64", "I64", "I8", "U8", "BOOL", "F8_E4M3", "BF16", "F16", "C64", "X"]))
        header = json.dumps(mutate_value(entries, rng) if rng.random() < 0.2 else entries).encode()
        return len(header).to_bytes(8, "little") + header + rest
    if kind < 0.8:
        return int(rng.choice([0, 1, 2**27, 2**40, 2**63 - 1])).to_bytes(8, "little") + content[8:]
    return mutate_bytes(content, rng)


def _odd_file(path: Path, rng: Rng) -> None:
    """Something that is no file: a pipe that nobody writes to, a device, a folder, a link to nowhere or to itself."""
    kinds: list[Callable[[], object]] = [
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("/dev/full"),
        lambda: path.symlink_to("/etc/passwd"),
        lambda: path.symlink_to(path.name),
        lambda: path.symlink_to("nowhere"),
        path.mkdir,
        lambda: _sparse(path),
        lambda: _write(path, b""),
    ]
    kinds[int(rng.integers(len(kinds)))]()


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _odd_showers(seeds: Seeds, rng: Rng) -> Case:
    path = Path("in", "task", "showers.h5")
    return Case(lambda case: _odd_file(case / path, rng), _on_showers(path, seeds, rng))


def _names(seeds: Seeds, rng: Rng) -> Case:
    """Hostile texts where a command expects a name, a number or a path."""
    name = HOSTILE_NAMES[int(rng.integers(len(HOSTILE_NAMES)))].replace("\0", "")
    commands: list[tuple[object, ...]] = [
        ("tasks", name),
        ("tasks", "--tasks", name),
        ("adapt", "--detector", name, "--out", "out/x"),
        ("adapt", "--detector", seeds.real, "--base", name, "--out", "out/x"),
        ("adapt", "--detector", seeds.real, "--generator", name, "--out", "out/x"),
        ("adapt", "--detector", seeds.real, "--absorber", name, "--active", "lAr:4", "--out", "out/x"),
        ("generate", "--model", name, "--out", "out/x.h5"),
        ("generate", "--model", seeds.model, "--energy", name, "--out", "out/x.h5"),
        ("generate", "--model", seeds.model, "--base", name, "--out", "out/x.h5"),
        ("inspect", seeds.real, "--group", name),
        ("inspect", name),
        ("convert", seeds.real, "--format", name, "--out", "out/x.h5"),
        ("convert", seeds.real, "--format", "par04", "--grid", name, "--out", "out/x.h5"),
        ("convert", seeds.real, "--format", "par04", "--rows", name, "--out", "out/x.h5"),
        ("pretrain", "--holdout", name, "--dry-run", "--out", "out/x"),
        ("pretrain", "--initial", name, "--dry-run", "--out", "out/x"),
        ("evaluate", *_QUICK, "--generated", name, "--reference", seeds.real),
        ("reproduce", name),
    ]
    chosen = commands[int(rng.integers(len(commands)))]
    return Case(lambda _: None, lambda _: _command(*chosen))


def _ntuple(seeds: Seeds, rng: Rng) -> Case:
    path = Path("in", "x.root")
    content = mutate_bytes(seeds.root.read_bytes(), rng) if seeds.has_root else b"root"
    mesh = ("--mesh", "9x16x45") if rng.random() < 0.5 else ()
    arguments = ("convert", path, "--format", "par04", "--out", "out/x.h5", *mesh)
    return Case(lambda case: _write(case / path, content), lambda _: _command(*arguments))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


KINDS: Final[dict[str, tuple[float, Callable[[Seeds, Rng], Case]]]] = {
    "HDF5, bytes": (0.35, _hdf5_bytes),
    "HDF5, structure": (0.25, _hdf5_structure),
    "TOML": (0.12, _toml),
    "model folders": (0.16, _model_folder),
    "names": (0.05, _names),
    "no files": (0.03, _odd_showers),
    "ROOT": (0.04, _ntuple),
}
"""Kind of the input to its share of the cases, and to what makes one of it."""
