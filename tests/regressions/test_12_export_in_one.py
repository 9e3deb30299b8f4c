"""Model, sidecar and macro of an export are complete or absent together, and a macro of the user is never touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from metacalo.errors import OutputError
from metacalo.export import ExportSettings, export
from metacalo.showers import resolve_task
from metacalo.storage.atomic import finish_set
from metacalo.storage.checkpoint import atomic_set, load_json

NAMES = ["m.onnx", "m.onnx.json", "m.onnx.mac"]


class Killed(BaseException):
    """Nothing that a library catches."""


def write_set(out, text, **stale):
    with atomic_set(out, **stale) as folder:
        for name in NAMES:
            (folder / name).write_text(text, encoding="utf-8")


def held(folder):
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(("method", "number"), [("rename", 0), ("replace", 0), ("replace", 1), ("replace", 2)])
def test_a_kill_leaves_what_is_completed(old, method, number, tmp_path, monkeypatch):
    """Killed before each of its renames: before the first the old set or none, then the new one once completed."""
    out = tmp_path / NAMES[0]
    if old:
        write_set(out, "old")
    before, calls, real = held(tmp_path), [], getattr(Path, method)

    def counted(self, target):
        calls.append(target)
        if len(calls) == number + 1:
            raise Killed
        return real(self, target)

    with monkeypatch.context() as context, pytest.raises(Killed):
        context.setattr(Path, method, counted)
        write_set(out, "new")
    begun = method == "replace"
    if begun:
        assert not out.exists(), "a model lies beside files of another set"
    finish_set(out)
    assert held(tmp_path) == (dict.fromkeys(NAMES, "new") if begun else before)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_stale_files_go_with_the_old_set(tmp_path):
    out = tmp_path / NAMES[0]
    write_set(out, "old")
    with atomic_set(out, stale=[tmp_path / NAMES[2]]) as folder:
        (folder / NAMES[0]).write_text("new", encoding="utf-8")
        (folder / NAMES[1]).write_text("new", encoding="utf-8")
    assert held(tmp_path) == dict.fromkeys(NAMES[:2], "new")


def test_an_error_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_set(tmp_path / NAMES[0]) as folder:
        (folder / NAMES[1]).write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """Exports without the network, which this is not about."""
    monkeypatch.setattr("metacalo.export.verb._writer", lambda _: lambda _, path: path.write_bytes(b"network"))
    detector = resolve_task("pblar").detector

    def run(interface, **options):
        return export("base", tmp_path / NAMES[0], ExportSettings(interface=interface), detector=detector, **options)

    return run


def test_a_macro_of_the_user_is_neither_replaced_nor_in_the_way(exported, tmp_path):
    macro = tmp_path / NAMES[2]
    macro.write_text("/run/beamOn 1\n", encoding="utf-8")
    for force in (False, True):
        with pytest.raises(OutputError, match=r"m\.onnx\.mac: exists already and is not the macro of an export"):
            exported("par04", force=force)
        assert sorted(held(tmp_path)) == [NAMES[2]]
    exported("named")
    exported("named", force=True)
    assert macro.read_text(encoding="utf-8") == "/run/beamOn 1\n"
    assert "macro" not in load_json(tmp_path / NAMES[1])


def test_an_own_macro_is_replaced_or_removed_but_not_once_it_was_changed(exported, tmp_path):
    for interface, names in (("par04", NAMES), ("par04", NAMES), ("named", NAMES[:2]), ("par04", NAMES)):
        exported(interface, force=True)
        assert sorted(held(tmp_path)) == names
    macro = tmp_path / NAMES[2]
    changed = macro.read_text(encoding="utf-8").replace("beamOn 100", "beamOn 7")
    macro.write_text(changed, encoding="utf-8")
    with pytest.raises(OutputError, match="or was changed since; move it or give another --out"):
        exported("par04", force=True)
    exported("named", force=True)
    assert macro.read_text(encoding="utf-8") == changed


def test_the_next_export_completes_one_that_was_killed(exported, tmp_path, monkeypatch):
    real = Path.replace

    def killed(self, target):
        if self.parent.name.endswith(".ready"):
            raise Killed
        return real(self, target)

    with monkeypatch.context() as context, pytest.raises(Killed):
        context.setattr(Path, "replace", killed)
        exported("par04")
    assert held(tmp_path) == {}
    with pytest.raises(OutputError, match=r"m\.onnx: exists already; give --force"):
        exported("par04")
    assert sorted(held(tmp_path)) == NAMES
    assert load_json(tmp_path / NAMES[1])["macro"]["file"] == NAMES[2]
