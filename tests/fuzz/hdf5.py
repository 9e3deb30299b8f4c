"""Shower files that are well-formed HDF5 and hostile: what a group may hold where showers are expected."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import h5py
import numpy as np

__all__ = ["deflated_zeros", "hostile_file", "seed_files"]

_SHAPE: Final = (3, 4, 5)
_COUNT: Final = 24
_COLUMNS: Final = ("incident_energy", "incident_theta", "incident_phi")

Rng = np.random.Generator
Hostile = Callable[[h5py.Group, str, np.ndarray, Rng], None]


def _showers(shape: tuple[int, ...] = _SHAPE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    voxels = rng.gamma(0.5, 20.0, (_COUNT, *shape)).astype(np.float32)
    values = [voxels.sum((1, 2, 3)), np.full(_COUNT, np.pi / 2, "f4"), np.zeros(_COUNT, "f4")]
    return {"showers": voxels, **dict(zip(_COLUMNS, values, strict=True))}


_DETECTOR: Final = {
    "detector": "PbLAr",
    "absorber_material": "Pb",
    "absorber_thickness_mm": 2.0,
    "active_material": "lAr",
    "active_thickness_mm": 4.0,
    "n_layers": 90,
    "dr_mm": 17.7,
    "dz_mm": 12.0,
}


def seed_files(folder: Path) -> list[Path]:
    """Small files of each convention, in the oldest and the newest format of HDF5, none of them wrong."""
    made = []
    data = _showers()
    for version in ("earliest", "latest"):
        for packed in ({}, {"chunks": (5, *_SHAPE), "compression": "gzip", "shuffle": True, "fletcher32": True}):
            made.append(folder / f"par04-{version}-{len(packed)}.h5")
            with h5py.File(made[-1], "w", libver=version) as file:
                file.create_dataset("showers", data=data["showers"], **packed)
                for name in _COLUMNS:
                    file[name] = data[name]
                file.attrs.update(_DETECTOR)
        made.append(folder / f"flat-{version}.h5")
        with h5py.File(made[-1], "w", libver=version) as file:
            file.create_dataset("showers", data=data["showers"].reshape(_COUNT, -1), compression="lzf")
            file["incident_energies"] = data["incident_energy"][:, None]
            file.attrs.update({"n_r": 3, "n_phi": 4, "n_z": 5})
        made.append(folder / f"SiW_{version}_angle_70.h5")
        with h5py.File(made[-1], "w", libver=version) as file:
            file["8"], file["64"] = data["showers"][:5], data["showers"][5:]
        made.append(folder / f"family-{version}.h5")
        with h5py.File(made[-1], "w", libver=version) as file:
            for member in ("a", "b"):
                group = file.create_group(member)
                group.attrs.update(_DETECTOR)
                for name, values in data.items():
                    group[name] = values
    return made


def deflated_zeros(size: int) -> bytes:
    """A zlib stream that inflates to that many zeros, a multiple of 1 MiB, made without compressing them all."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (size % 65521) << 16 | 1
    return b"\x78\xda" + block * (size // 2**20) + b"\x03\x00" + checksum.to_bytes(4, "big")


def _bomb(place: h5py.Group, name: str, values: np.ndarray, rng: Rng) -> None:
    """One chunk that inflates to gigabytes, whatever size it is said to have."""
    shape = values.shape if rng.random() < 0.5 else (2**20 * int(rng.integers(1, 64)), *values.shape[1:])
    packed = place.create_dataset(name, shape, "f4", chunks=shape, compression="gzip")
    packed.id.write_direct_chunk((0,) * len(shape), deflated_zeros(int(rng.choice([2**28, 2**32, 2**34]))))


def _twice_packed(place: h5py.Group, name: str, values: np.ndarray, rng: Rng) -> None:
    """A bomb within a bomb."""
    kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    kind.set_chunk(values.shape)
    for _ in range(2):
        kind.set_deflate(9)
    space = h5py.h5s.create_simple(values.shape)
    packed = h5py.h5d.create(place.id, name.encode(), h5py.h5t.IEEE_F32LE, space, kind)
    packed.write_direct_chunk((0,) * values.ndim, zlib.compress(deflated_zeros(2**34), 9))


def _unstored(place: h5py.Group, name: str, values: np.ndarray, rng: Rng) -> None:
    """As many rows as one likes, none of them there."""
    count = int(rng.choice([10**5, 10**8, 10**12, 2**62]))
    rest = values.shape[1:] if rng.random() < 0.7 else tuple(int(n) for n in rng.choice([1, 4, 10**4, 10**6], 3))
    chunks = None if rng.random() < 0.3 else (min(count, int(rng.choice([1, 1024, 2**20]))), *(1 for _ in rest))
    place.create_dataset(name, (count, *rest), "f4", chunks=chunks, fillvalue=float(rng.choice([0, 1, np.nan])))


def _large_chunk(place: h5py.Group, name: str, values: np.ndarray, rng: Rng) -> None:
    size = int(rng.choice([2**27, 2**29, 2**30 - 1]))
    shape = (size, *(1 for _ in values.shape[1:]))
    packed = place.create_dataset(name, (2 * size, *values.shape[1:]), "f4", chunks=shape, compression="gzip")
    packed.id.write_direct_chunk((0,) * len(shape), deflated_zeros(4 * size + int(rng.integers(2)) * 2**32))


def _typed(place: h5py.Group, name: str, values: np.ndarray, rng: Rng) -> None:
    """Anything but plain numbers."""
    count = len(values)
    text = h5py.string_dtype()
    kinds: list[Callable[[], object]] = [
        lambda: place.create_dataset(name, data=np.array(["64"] * count, dtype=object), dtype=text),
        lambda: place.create_dataset(name, data=np.array([b"64"] * count)),
        lambda: place.create_dataset(name, (count,), h5py.vlen_dtype(np.float32)),
        lambda: place.create_dataset(name, (count,), h5py.ref_dtype),
        lambda: place.create_dataset(name, (count,), h5py.regionref_dtype),
        lambda: place.create_dataset(name, (count,), np.dtype([("a", "f4"), ("b", "S5")])),
        lambda: place.create_dataset(name, (count,), h5py.enum_dtype({"a": 1, "b": 2})),
        lambda: place.create_dataset(name, (count,), h5py.opaque_dtype(np.dtype("M8[s]"))),
        lambda: place.create_dataset(name, (count,), np.dtype(("f4", (3, 4, 5)))),
        lambda: place.create_dataset(name, (count,), np.dtype("V16")),
        lambda: place.create_dataset(name, data=values.astype(bool)),
        lambda: place.create_dataset(name, data=values.astype(complex)),
        lambda: place.create_dataset(name, data=values.astype(np.longdouble)),
        lambda: place.create_dataset(name, data=values.astype(">f8")),
        lambda: place.create_dataset(name, data=np.float32(3)),
        lambda: place.create_dataset(name, data=h5py.Empty("f4")),
        lambda: place.create_dataset(name, (), h5py.vlen_dtype(np.float32)),
        lambda: _odd_float(place, name, values.shape),
    ]
    kinds[int(rng.integers(len(kinds)))]()


def _odd_float(place: h5py.Group, name: str, shape: tuple[int, ...]) -> None:
    """A float of 40 bits, as no numpy has."""
    kind = h5py.h5t.IEEE_F64LE.copy()
    kind.set_fields(39, 31, 8, 0, 31)
    kind.set_size(5)
    kind.set_ebias(127)
    h5py.h5d.create(place.id, name.encode(), kind, h5py.h5s.create_simple(shape))


def _elsewhere(place: h5py.Group, name: str, values: np.ndarray, rng: Rng) -> None:
    """Data that lie in other files, or nowhere."""
    target = str(rng.choice(["/etc/passwd", "/dev/zero", "other.h5", "../../x.h5", place.file.filename]))
    kinds: list[Callable[[], object]] = [
        lambda: place.__setitem__(name, h5py.ExternalLink(target, "/showers")),
        lambda: place.__setitem__(name, h5py.SoftLink(f"/{name}")),
        lambda: place.__setitem__(name, h5py.SoftLink("/nowhere/at/all")),
        lambda: place.create_dataset(name, values.shape, "f4", external=[(target, 0, h5py.h5f.UNLIMITED)]),
        lambda: _virtual(place, name, values.shape, target),
        lambda: place.__setitem__(name, place.file["/"]),
        lambda: place.create_group(name).__setitem__("self", place),
        lambda: place.__setitem__(name, np.dtype("f4")),
    ]
    kinds[int(rng.integers(len(kinds)))]()


def _virtual(place: h5py.Group, name: str, shape: tuple[int, ...], target: str) -> None:
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource(target, "showers", shape=shape)
    place.create_virtual_dataset(name, layout)


def _filtered(place: h5py.Group, name: str, values: np.ndarray, rng: Rng) -> None:
    """Filters that are unknown, seldom, or given wrong sizes."""
    kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    kind.set_chunk(values.shape)
    number = int(rng.choice([1, 2, 3, 5, 6, 305, 32000, 32001, 32015, 40000]))
    message = tuple(int(n) for n in rng.choice([0, 1, 2, 8, 2**31, 2**32 - 1], int(rng.integers(0, 12))))
    kind.set_filter(number, int(rng.integers(2)), message)
    space = h5py.h5s.create_simple(values.shape)
    packed = h5py.h5d.create(place.id, name.encode(), h5py.h5t.IEEE_F32LE, space, kind)
    packed.write_direct_chunk((0,) * values.ndim, rng.bytes(int(rng.integers(1, 4096))))


def _wrong_values(place: h5py.Group, name: str, values: np.ndarray, rng: Rng) -> None:
    wrong = np.array(values, np.float64)
    wrong.flat[rng.integers(wrong.size, size=3)] = rng.choice([np.nan, np.inf, -1, 1e300, 1e39, 0])
    shapes = [wrong, wrong[:-1], wrong[:0], wrong[None], wrong.reshape(-1), wrong[..., :0], wrong.T]
    place[name] = shapes[int(rng.integers(len(shapes)))]


_HOSTILE: Final[tuple[Hostile, ...]] = (
    _bomb, _twice_packed, _unstored, _large_chunk, _typed, _typed, _elsewhere, _filtered, _wrong_values,
)  # fmt: skip


def _attributes(place: h5py.Group, names: tuple[str, ...], rng: Rng) -> None:
    keys = (*_DETECTOR, "layers", "n_r", "n_phi", "n_z", "sampling_fraction", "threshold_MeV", "converted_from", "base")
    key = str(rng.choice([*keys, "converted_scale", "scoring", "X0_mm", "generator"]))
    key = key if rng.random() < 0.9 else names[int(rng.integers(len(names)))].replace("\0", "") or "x"
    space = h5py.Empty("f4")
    values = [
        *names, -1, 0, 2**62, np.nan, np.inf, 1e300, b"\xff\xfe", "x" * 50_000, np.zeros((3, 4)), np.array([], "f4"),
        space, place.ref, np.array([place.ref], h5py.ref_dtype), np.zeros(2, np.dtype([("a", "f4"), ("b", "S3")])),
        np.array(["a", "b"], object), "[" * 30_000, '[{"material": "Pb", "thickness_mm": 1e999}]', f"[{'9' * 9000}]",
        '[{"material": "X", "composition": {"Pb": "1"}, "density_g_cm3": 1, "thickness_mm": 1}]', '{"a": 1}', "[1]",
        '[{"material": "X", "composition": [1], "density_g_cm3": 1, "thickness_mm": 1, "active": 1}]',
    ]  # fmt: skip
    value = values[int(rng.integers(len(values)))]
    try:
        place.attrs[key] = value.replace("\0", "") if isinstance(value, str) else value
    except (ValueError, OSError, RuntimeError, TypeError):  # HDF5 writes no such thing
        place.attrs["detector"] = ""


def hostile_file(path: Path, names: tuple[str, ...], rng: Rng) -> None:
    """Writes a shower file with something hostile in it.

    Args:
        path: the file.
        names: hostile names for attributes, groups and datasets.
        rng: what is drawn from.
    """
    data = _showers((9, 16, 45) if rng.random() < 0.2 else _SHAPE)
    flat, hgcal = rng.random() < 0.2, rng.random() < 0.1
    if flat:
        data = {"showers": data["showers"].reshape(_COUNT, -1), "incident_energies": data["incident_energy"][:, None]}
    if hgcal:
        data = dict.fromkeys(("1", "64", str(rng.choice(["1e999", "1e-320", "0x10", "64.0", "1_0"]))), data["showers"])
    victim = str(rng.choice(list(data))) if rng.random() < 0.8 else ""
    with h5py.File(path, "w", libver=str(rng.choice(["earliest", "latest"]))) as file:
        place: h5py.Group = file
        if rng.random() < 0.15:
            message = (
                names[int(rng.integers(len(names)))].encode("utf-8", "ignore").decode()
            )  # others h5py does not write
            member = message.replace("\0", "").strip("./")
            place = file.require_group(member or "g")
        if rng.random() < 0.5:
            place.attrs.update(_DETECTOR)
        for name, values in data.items():
            if name == victim:
                try:
                    _HOSTILE[int(rng.integers(len(_HOSTILE)))](place, name, values, rng)
                except (ValueError, OSError, RuntimeError, TypeError):  # HDF5 writes no such thing
                    place.require_group(name)
            else:
                place.create_dataset(name, data=values, compression="gzip" if rng.random() < 0.5 else None)
        if not victim or rng.random() < 0.2:
            for _ in range(int(rng.integers(1, 4))):
                _attributes(place, names, rng)
