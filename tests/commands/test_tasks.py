"""`metacalo tasks`: what ships, one detector in full, and folders of one's own."""

from __future__ import annotations

import re
import tomllib

import pytest

from metacalo.showers import Detector, discover_tasks, resolve_task, write_showers


def test_all_tasks_are_listed(command):
    ran = command("tasks")
    assert (ran.code, ran.err) == (0, "")
    rows = [re.split(r"(?<! x) (?!x )\s*", line.strip()) for line in ran.out.splitlines()[2:]]
    assert [row[0] for row in rows if len(row) > 1] == list(discover_tasks())
    listed = {row[0]: row[1:] for row in rows}
    assert listed["pblar"] == ["Pb", "lAr", "15.59", "34.8", "9.51", "9 x 16 x 45", "3375"]
    assert listed["pbwo4"][:2] == ["-", "PbWO4"]


@pytest.mark.parametrize("name", ["pblar", "pbwo4", "family/Fe-Si-25"])
def test_one_task_is_shown_as_the_toml_that_describes_it(command, tmp_path, name):
    ran = command("tasks", name)
    assert (ran.code, ran.err) == (0, "")
    task = resolve_task(name)
    description, (sizes, showers) = ran.out.splitlines()[:-2], ran.out.splitlines()[-2:]
    text = "\n".join(description)
    assert tomllib.loads(text) == tomllib.loads(task.detector.to_toml())
    (tmp_path / "detector.toml").write_text(text, encoding="utf-8")
    assert Detector.from_toml(tmp_path / "detector.toml") == task.detector
    assert sizes.startswith(f"X0 {task.detector.X0_mm:.2f} mm   R_M ")
    assert showers == f"{task.n_showers:,} showers in showers.h5"


def test_a_folder_of_one_s_own(command, tmp_path, pblar):
    place = tmp_path / "tasks" / "mine"
    write_showers(place / "showers.h5", pblar[:5])
    toml = pblar.detector.to_toml().replace('"PbLAr"', '"mine [prototype 2]"')
    (place / "detector.toml").write_text(toml, encoding="utf-8")
    ran = command("tasks", "--tasks", place.parent)
    assert ran.code == 0
    row = next(line for line in ran.out.splitlines() if line.startswith("mine"))
    assert row.split()[-1] == "5"
    assert "\npblar " in ran.out
    shown = command("tasks", "mine", "--tasks", place.parent)
    assert shown.code == 0
    assert 'name = "mine [prototype 2]"\n' in shown.out
    assert shown.out.endswith("5 showers in showers.h5\n")
