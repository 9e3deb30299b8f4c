"""What files of strangers call their parts is shown, and never obeyed by the terminal."""

from __future__ import annotations

import h5py

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202eevil\u2028"


def test_names_and_attributes_are_shown_and_not_obeyed(command, sample, tmp_path):
    path = tmp_path / "hostile.h5"
    with h5py.File(sample) as source, h5py.File(path, "w") as file:
        for name in source:
            source.copy(name, file)
        file.attrs.update(source.attrs)
        file.attrs["detector"] = HOSTILE
        file.attrs["note"] = HOSTILE
        file.attrs[HOSTILE] = "[bold red]markup[/bold red]"
    ran = command("inspect", path)
    assert ran.code == 0
    for letter in ("\x1b", "\x07", "\u202e", "\u2028"):
        assert letter not in ran.out
    assert "\\x1b[2J" in ran.out
    assert "[bold red]markup" in ran.out


def test_an_error_is_one_line_whatever_a_name_holds(command, tmp_path):
    path = tmp_path / "groups.h5"
    with h5py.File(path, "w") as file:
        file.create_group("two\nlines" + HOSTILE)
    ran = command("inspect", path)
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert "two\\nlines\\x1b[2J" in ran.err


def test_a_path_that_the_system_refuses_is_one_sentence(command, sample, tmp_path):
    ran = command("adapt", "--detector", sample, "--base", "x" * 5000, "--out", tmp_path / "out")
    assert ran.code == 2
    assert ran.err.endswith(": File name too long; give another path\n")
