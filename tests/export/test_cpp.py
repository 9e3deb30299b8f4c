"""Exported files in the C++ program that runs them as Geant4's example Par04 does."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.export.conftest import SHORT

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "docs" / "examples" / "par04"
RUNTIME = REPOSITORY / "build" / "onnxruntime"  # what fetch-onnxruntime.sh writes
BUILD = REPOSITORY / "build" / "par04"  # what `make par04` writes, with LibTorch too
CELLS = (9, 16, 45)
UNSEEDED = {**SHORT, "seed": None}

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def call(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shower(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The program, as it is now."""
    missing = [tool for tool in ("cmake", "g++") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    build = BUILD
    if not (BUILD / "CMakeCache.txt").is_file():
        if not (RUNTIME / "include" / "onnxruntime_cxx_api.h").is_file():
            pytest.skip("headers of ONNX Runtime are not there: docs/examples/par04/fetch-onnxruntime.sh gets them")
        build = tmp_path_factory.mktemp("par04")
        call("cmake", "-S", SOURCE, "-B", build, "-DWITH_TORCH=OFF", f"-DCMAKE_PREFIX_PATH={RUNTIME}")
    call("cmake", "--build", build)
    return lambda *options: subprocess.run(
        [build / "shower", *map(str, options)], capture_output=True, text=True, check=False
    )


def par04(n: int) -> np.ndarray:
    return np.tile(np.array([10, 0, np.pi / 2, 0, 0, 0, 0, 1], np.float32), (n, 1))


def test_the_cells_are_those_of_python(shower, exported, tmp_path):
    path, out = exported(**SHORT), tmp_path / "cells.f32"
    done = shower(path, "--showers", 12, "--out", out)
    assert done.returncode == 0, done.stderr
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    expected = [1e3 * session.run(None, {"conditions": par04(1)})[0][0] for _ in range(12)]
    found = np.fromfile(out, np.float32).reshape(12, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:12]] == [f"shower {k}" for k in range(1, 13)]
    total, hits, layer = found[0].sum(), (found[0] > 0).sum(), found[0].reshape(CELLS).sum((0, 1)).argmax()
    assert lines[0] == f"shower 1: {total / 1e3:.3f} GeV in {hits} cells, most in layer {layer}"
    assert lines[-1] == "cells, order and total are as they must be"
    assert "ms a shower" in lines[-2]


def test_torchscript_gives_the_cells_of_python(shower, exported, tmp_path):
    path, out = exported(generator="diffusion", format="torchscript"), tmp_path / "cells.f32"
    done = shower(path, "--showers", 10, "--seed", 3, "--out", out)
    if "built without" in done.stderr:
        pytest.skip("the program was built without LibTorch: make par04")
    assert done.returncode == 0, done.stderr
    module = torch.jit.load(str(path))
    torch.manual_seed(3)
    expected = [1e3 * module(torch.from_numpy(par04(1)[0]))[0].numpy() for _ in range(10)]
    found = np.fromfile(out, np.float32).reshape(10, -1)
    difference = np.abs(found - expected).sum(1) / found.sum(1)
    assert np.median(difference) < 1e-4  # rounding may turn a comparison in one of them


@pytest.mark.parametrize("level", [(), ("--optimise",)], ids=["as it is", "optimised"])
def test_sessions_of_one_process_draw_other_noise(level, shower, exported):
    done = shower(exported(**UNSEEDED), "--showers", 20, "--threads", 2, "--energy", 50, *level)
    assert done.returncode == 0, done.stderr


def test_sessions_with_one_seed_are_reported(shower, exported):
    done = shower(exported(**SHORT), "--showers", 4, "--threads", 2)
    assert done.returncode == 1
    assert done.stderr.endswith("are the same: their sessions draw the same noise\n")


def changed(path: Path, to: Path, *steps: object) -> Path:
    """The same file with more operators at its end."""
    model = onnx.load(path)
    (output,) = model.graph.output
    output.type.tensor_type.ClearField("shape")
    last = next(node for node in reversed(model.graph.node) if output.name in node.output)
    last.output[list(last.output).index(output.name)] = name = "energies_before"
    for number, (operator, attributes, constants) in enumerate(steps):
        after = output.name if number == len(steps) - 1 else f"energies_{number}"
        inputs = [f"constant_{number}_{k}" for k in range(len(constants))]
        for key, value in zip(inputs, constants, strict=True):
            kind = onnx.TensorProto.INT64 if isinstance(value[0], int) else onnx.TensorProto.FLOAT
            model.graph.initializer.append(onnx.helper.make_tensor(key, kind, [len(value)], value))
        model.graph.node.append(onnx.helper.make_node(operator, [name, *inputs], [after], **attributes))
        name = after
    onnx.save(model, to)
    shutil.copy(f"{path}.json", f"{to}.json")
    return to


SWAPPED = (
    ("Reshape", {}, ([-1, *CELLS],)),
    ("Transpose", {"perm": [0, 3, 2, 1]}, ()),
    ("Reshape", {}, ([-1, 6480],)),
)
"""z slowest, as in the CaloChallenge."""
PHI_FIRST = (
    ("Reshape", {}, ([-1, *CELLS],)),
    ("Transpose", {"perm": [0, 2, 1, 3]}, ()),
    ("Reshape", {}, ([-1, 6480],)),
)
"""phi slowest."""
FEWER = (("Slice", {}, ([0], [6400], [1])),)


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        (SWAPPED, "wrong order"),
        (PHI_FIRST, "wrong order"),
        (FEWER, "the model gives 6400 values and its mesh has 6480"),
        ((("Mul", {}, ([1e3],)),), "wrong units or another model"),
        ((("Mul", {}, ([-1.0],)),), "has a negative energy"),
        ((("Mul", {}, ([0.3],)),), "which is below the threshold"),
        ((("Log", {}, ()),), "is no number: -inf"),
    ],
    ids=["z first", "phi first", "too few", "MeV", "negative", "below the threshold", "no number"],
)
def test_what_is_wrong_is_reported_in_one_sentence(steps, sentence, shower, exported, tmp_path):
    done = shower(changed(exported(**SHORT), tmp_path / "m.onnx", *steps), "--showers", 10)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.startswith("shower: ")
    assert done.stderr.count("\n") == 1


def test_what_cannot_be_run_is_reported(shower, exported, tmp_path):
    path = exported(**SHORT)
    for options, sentence in [
        (["m.onnx"], "m.onnx.json: there is no such file"),
        ([path, "--energy", "much"], "--energy: 'much' is no number it can be"),
        ([path, "--showers", "0"], "--showers: '0' is no number it can be"),
        ([path, "--seed", "1"], "an ONNX file holds its seed"),
        ([path, "--colour", "red"], "there is no option --colour"),
        ([], "which model?"),
    ]:
        done = shower(*options)
        assert done.returncode, options
        assert sentence in done.stderr
    message = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    message["interface"]["name"] = "named"
    (tmp_path / "n.onnx.json").write_text(json.dumps(message), encoding="utf-8")
    assert "export it with --interface par04" in shower(tmp_path / "n.onnx").stderr
    del message["mean_response"]
    (tmp_path / "n.onnx.json").write_text(json.dumps(message), encoding="utf-8")
    assert "it has no mean_response; export the model again" in shower(tmp_path / "n.onnx").stderr
    (tmp_path / "m.onnx").write_bytes(b"none")
    shutil.copy(f"{path}.json", tmp_path / "m.onnx.json")
    assert shower(tmp_path / "m.onnx").returncode == 1
