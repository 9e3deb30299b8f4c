"""Commands that README, docs, cards and scripts name exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import typer.main

from metacalo.cli.app import app

ROOT = Path(__file__).parents[1]
TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "Makefile",
        ".ci/run",
        "docs/**/*.md",
        "pretrained/**/*.md",
        "metacalo/sharing/*.py",
        "docs/**/*.sh",
    )
    for path in ROOT.glob(pattern)
    if path.name != "changelog.md"  # which names what was
)
MODULE = re.compile(r"python3? -m ((?:benchmarks|tests|metacalo)[\w.]*)")
VERB = re.compile(r"(?:^|[\s`/])metacalo ([a-z][a-z-]+)(?= [-\w\[./]|`|$)", re.MULTILINE)


def commands(text: str) -> set[str]:
    """What stands in code: spans, fenced or indented blocks."""
    return set(VERB.findall("\n".join(re.findall(r"```.*?```|`[^`\n]+`|^ {4}[^\n]*$", text, re.DOTALL | re.MULTILINE))))


def test_texts_are_found() -> None:
    assert {"README.md", "Makefile", "run", "CARD.md", "evaluate.md"} <= {path.name for path in TEXTS}
    assert commands("`metacalo nosuch --x`, metacalo is") == {"nosuch"}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_and_commands_that_a_text_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in sorted(set(MODULE.findall(text)) | {"metacalo"}):
        found = importlib.util.find_spec(name.rstrip("."))
        assert found is not None, f"{name}: no such module"
        if found.submodule_search_locations is not None:
            assert importlib.util.find_spec(f"{name}.__main__"), f"{name}: a package that does not run"
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert commands(text) <= known
