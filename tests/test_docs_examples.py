"""The shell and Python blocks of the first pages run as they stand, in an empty folder with a user's files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from metacalo.convert import ConvertSettings, convert

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "docs/start/tutorial.md",
    "docs/how-to/evaluate.md",
    "docs/how-to/python.md",
)
SKIP = "<!-- not executed: "


def blocks(text: str) -> list[tuple[str, str, bool]]:
    """Language and text of each shell or Python block, and whether the comment before it says why it is skipped."""
    found, skipped = [], False
    for token in MarkdownIt().parse(text):
        if token.type == "fence" and token.info in {"sh", "python"}:
            found.append((token.info, token.content, skipped))
        skipped = token.type == "html_block" and token.content.startswith(SKIP)
    return found


def test_blocks_are_found() -> None:
    text = f"```sh\nrun\n```\n\n{SKIP}hours -->\n\n```python\nx\n```\n\nwords\n\n```toml\ny = 1\n```\n"
    assert blocks(text) == [("sh", "run\n", False), ("python", "x\n", True)]
    assert all(any(not skipped for *_, skipped in blocks((ROOT / page).read_text())) for page in PAGES)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "metacalo"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m metacalo "$@"\n')
    shim.chmod(0o755)
    for name in ("tasks", "pretrained", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, rows in {"full.h5": "siw", "ar.h5": "siw", "diffusion.h5": "siw", "showers.h5": "pblar"}.items():
        (tmp_path / "out").mkdir(exist_ok=True)
        place = tmp_path / "out" if name == "showers.h5" and page == "docs/how-to/evaluate.md" else tmp_path
        convert(rows, place / name, ConvertSettings(to="par04", showers=200))
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    for language, text, skipped in blocks((ROOT / page).read_text()):
        if skipped:
            continue
        program = ["sh", "-ec", text] if language == "sh" else [sys.executable, "-c", text]
        ran = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{page}\n{text}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"
