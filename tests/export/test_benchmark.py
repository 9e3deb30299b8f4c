"""The benchmark of an exported file: figures of both sides, and the same showers of the same noise."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")

from benchmarks.speed import exported as benchmark


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(benchmark, "BATCH", 4)
    monkeypatch.setattr(benchmark, "SAME_NOISE", 4)


def test_a_file_is_compared_with_pytorch(exported, tmp_path, capsys):
    path, out = exported(generator="diffusion", interface="named"), tmp_path / "figures.json"
    benchmark.main(["--onnx", str(path), "--showers", "60", "--seconds", "0", "--out", str(out)])
    printed, figures = capsys.readouterr().out, json.loads(out.read_text(encoding="utf-8"))
    assert set(figures["milliseconds"]) == {"1", "4"}
    assert all(cost["wall"] > 0 for ways in figures["milliseconds"].values() for cost in ways.values())
    assert figures["same_noise"]["within_1e-4"] == 1
    assert figures["agreement"]["mean_shower_cosine"] > 0.98
    assert figures["agreement"]["mean_w1"]["value"] < 2 * figures["agreement"]["mean_w1"]["floor"]
    assert "PyTorch against itself" in printed
    assert "MB" in printed


def test_a_file_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(SystemExit, match="there is no such file; make it by 'metacalo export'"):
        benchmark.main(["--onnx", str(tmp_path / "m.onnx")])
