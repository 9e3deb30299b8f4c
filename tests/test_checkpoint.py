from __future__ import annotations

import errno
import json
import pickletools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metacalo.errors import ModelFolderError, OutputError
from metacalo.storage.checkpoint import (
    atomic_file,
    atomic_folder,
    load_json,
    load_tensors,
    save_json,
    save_tensors,
    tensor_hash,
)


class StopHereError(Exception):
    pass


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {
        "single": torch.tensor([[1.0, -0.0, 1e-42], [2.0, 3.0, 4.0]]),
        "half": torch.arange(4).to(torch.bfloat16),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
    }


def test_a_file_appears_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("all")
        assert not path.exists()
    assert path.read_text() == "all"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [StopHereError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_file_keeps_its_old_content_when_the_body_raises(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), atomic_file(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no space left on the device"), atomic_file(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_appears_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model"
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_keeps_its_old_content_when_the_body_raises(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "a").write_text("old")
    with pytest.raises(StopHereError), atomic_folder(path, force=True) as temporary:
        (temporary / "a").write_text("new")
        raise StopHereError
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_replaced_folder_holds_nothing_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for name in ("a", "b"):
        with atomic_folder(path, force=True) as temporary:
            (temporary / name).write_text(name)
    assert [file.name for file in path.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_an_existing_output_is_not_touched_without_force(tmp_path: Path, atomic: Callable) -> None:
    path = tmp_path / "there"
    path.write_text("old")
    entered = False
    with pytest.raises(OutputError, match="exists already; give --force"), atomic(path, force=False):
        entered = True
    assert not entered
    assert path.read_text() == "old"


def test_an_output_below_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        save_json(tmp_path / "file" / "x.json", {})
    with pytest.raises(OutputError, match="cannot be written"), atomic_folder(tmp_path / "file" / "model"):
        pass


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"text": "é", "list": [1, 2.5, None], "nested": {"yes": True}}
    save_json(tmp_path / "x.json", value)
    assert load_json(tmp_path / "x.json") == value
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "not readable as JSON"),
        (b"\xff", "not readable as JSON"),
        (b"[1]", "holds list, an object was expected"),
        (None, "missing; is .* a metacalo model folder"),
    ],
)
def test_wrong_json(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ModelFolderError, match=rf"x\.json: {sentence}"):
        load_json(tmp_path / "x.json")


def test_tensors_round_trip_bit_for_bit(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_tensors(tmp_path / "x.safetensors", tensors, {"step": "3"})
    loaded, metadata = load_tensors(tmp_path / "x.safetensors")
    assert metadata == {"step": "3"}
    assert {name: (t.dtype, t.shape) for name, t in loaded.items()} == {
        name: (t.dtype, t.shape) for name, t in tensors.items()
    }
    assert tensor_hash(loaded) == tensor_hash(tensors)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.safetensors"]


def test_a_view_that_is_not_contiguous_keeps_its_values(tmp_path: Path) -> None:
    matrix = torch.arange(12.0).reshape(3, 4)
    save_tensors(tmp_path / "x.safetensors", {"turned": matrix.T, "column": matrix[:, 1]})
    loaded, _ = load_tensors(tmp_path / "x.safetensors")
    assert torch.equal(loaded["turned"], matrix.T)
    assert torch.equal(loaded["column"], matrix[:, 1])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_gives_one_sentence(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"weights": torch.zeros(1000)})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFolderError, match=r"x\.safetensors: not a readable safetensors file") as caught:
        load_tensors(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("make the model again")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_reported(tmp_path: Path, value: float) -> None:
    save_tensors(tmp_path / "x.safetensors", {"good": torch.zeros(3), "bad": torch.tensor([1.0, value])})
    with pytest.raises(ModelFolderError, match="tensor 'bad' holds values that are not finite"):
        load_tensors(tmp_path / "x.safetensors")


def test_missing_tensors_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"missing; is .* a metacalo model folder"):
        load_tensors(tmp_path / "x.safetensors")


def test_nothing_that_is_written_is_a_pickle(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_tensors(tmp_path / "x.safetensors", tensors)
    save_json(tmp_path / "x.json", {"a": 1})
    torch.save(tensors, tmp_path / "pickle.pt")  # what the check must find
    assert [path.name for path in tmp_path.iterdir() if _is_pickle(path)] == ["pickle.pt"]
    header = (tmp_path / "x.safetensors").read_bytes()
    assert set(json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])) == set(tensors)


def _is_pickle(path: Path) -> bool:
    content = path.read_bytes()
    if content.startswith(b"PK"):  # the archives of torch.save
        return b"data.pkl" in content
    try:
        return len(list(pickletools.genops(content))) > 0
    except Exception:
        return False


def test_the_hash_knows_names_shapes_types_and_every_bit() -> None:
    tensor = torch.arange(6.0)
    plain = tensor_hash({"a": tensor})
    assert tensor_hash({"a": tensor.clone()}) == plain
    others = {
        "name": {"b": tensor},
        "shape": {"a": tensor.reshape(2, 3)},
        "type": {"a": tensor.view(torch.int32)},
        "one more": {"a": tensor, "b": torch.zeros(0)},
        "sign of zero": {"a": tensor * torch.tensor([-1.0, 1, 1, 1, 1, 1])},
    }
    hashes = {what: tensor_hash(tensors) for what, tensors in others.items()}
    assert len({plain, *hashes.values()}) == len(others) + 1


@given(st.integers(0, 31), st.integers(0, 7))
def test_one_flipped_bit_changes_the_hash(byte: int, bit: int) -> None:
    tensor = torch.linspace(-1, 1, 8)
    flipped = tensor.clone()
    flipped.view(torch.uint8)[byte] ^= 1 << bit
    assert tensor_hash({"a": tensor}) != tensor_hash({"a": flipped})


def test_the_hash_does_not_depend_on_order_or_memory_layout() -> None:
    a, b = torch.randn(3, 4), torch.randn(2)
    assert tensor_hash({"a": a, "b": b}) == tensor_hash({"b": b, "a": a.T.contiguous().T})
