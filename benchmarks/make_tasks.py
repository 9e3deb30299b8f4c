"""Writes the shower samples that ship in `tasks/` from the full files: `python -m benchmarks.make_tasks FOLDER`.

The full files hold mantissas of 10 bits, so that float16 keeps every value exactly; this is checked value by value.
float16 without shuffle and gzip 9 over 128 showers is the smallest of the layouts that were tried.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np

from metacalo.storage.checkpoint import atomic_file

TASKS = {"siw": ("SiW.h5", 1500), "scipb": ("SciPb.h5", 1500), "pbwo4": ("PbWO4.h5", 1000), "pblar": ("PbLAr.h5", 3375)}
FAMILY = ("family.h5", 130)
LARGEST_MB, LARGEST_TOTAL_MB = 9.9, 26.0


def copy_sample(source: h5py.Group, target: h5py.Group, rows: int) -> None:
    """Copies the first `rows` showers (fewer where the source has fewer) and all attributes."""
    target.attrs.update(source.attrs)
    for name in ("incident_energy", "incident_theta", "incident_phi"):
        target.create_dataset(name, data=source[name][:rows], compression="gzip", compression_opts=9, shuffle=True)
    showers = source["showers"][:rows]
    half = showers.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), showers):
        raise SystemExit(f"{source.file.filename}:{source.name}: float16 would change the showers")
    chunks = (min(128, len(half)), *half.shape[1:])
    target.create_dataset("showers", data=half, chunks=chunks, compression="gzip", compression_opts=9)


def copy_file(source: Path, target: Path, rows: int) -> None:
    """Copies a task file, or each group of a family file."""
    with h5py.File(source) as full, atomic_file(target) as temporary, h5py.File(temporary, "w") as sample:
        if "showers" in full:
            copy_sample(full, sample, rows)
        else:
            for name in full:
                copy_sample(full[name], sample.create_group(name), rows)


def main() -> None:
    """Writes the five samples and prints their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("full", type=Path, help="folder of SiW.h5, SciPb.h5, PbWO4.h5, PbLAr.h5 and family.h5")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "tasks", help="folder of the tasks")
    arguments = parser.parse_args()
    sizes = []
    for name, (file, rows) in {**TASKS, "family": FAMILY}.items():
        target = arguments.out / name / "showers.h5"
        copy_file(arguments.full / file, target, rows)
        sizes.append(target.stat().st_size / 1e6)
        print(f"{name}: {sizes[-1]:.2f} MB")
    if max(sizes) > LARGEST_MB or sum(sizes) > LARGEST_TOTAL_MB:
        raise SystemExit(f"too large: {sum(sizes):.1f} MB in all, {max(sizes):.1f} MB the largest; take fewer showers")


if __name__ == "__main__":
    main()
