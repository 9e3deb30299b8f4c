"""Untrusted JSON and TOML: what is no document is refused at once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metacalo.storage.documents import LARGEST, DocumentError, parse_json, read_json, read_toml

NO_CLEAN_FOLDER = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reason(path: Path, read=read_json) -> str:
    with pytest.raises(DocumentError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize("read", [read_json, read_toml])
def test_a_pipe_a_device_and_a_folder_are_no_documents(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "zero", "."):
        assert reason(tmp_path / name, read) == "it is no regular file"
    assert "ymbolic" in reason(tmp_path / "loop", read)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")


def test_size_is_bounded(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    assert "at most 16,777,216 are read" in reason(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1, "b": 2, "a": 3}', "key 'a' comes twice"),
        (b"9" * 100_000, "limit"),
        (b"\xff\xfe", "no UTF-8 text, from byte 0 on"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"", "Expecting value"),
    ],
)
def test_json_that_is_refused(tmp_path, text, words):
    (tmp_path / "x.json").write_bytes(text)
    assert words in reason(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"a = 1\na = 2", "overwrite"),
        (b"a = " + b"9" * 100_000, "limit"),
        (b"\xc3\x28", "no UTF-8"),
        (b".".join([b"a"] * 20_000) + b" = 1", "more than 100 dots in a line"),
        (b"#" * 2**19, "more than 262,144 letters"),
    ],
)
def test_toml_that_is_refused(tmp_path, text, words):
    (tmp_path / "x.toml").write_bytes(text)
    assert words in reason(tmp_path / "x.toml", read_toml)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@settings(max_examples=20)
@given(value=json_values)
def test_json_that_is_right_is_what_json_makes_of_it(value):
    assert parse_json(json.dumps(value)) == value


@NO_CLEAN_FOLDER
@given(content=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(tmp_path, content):
    for read in (read_json, read_toml):
        (tmp_path / "x").write_bytes(content)
        message = "read"
        try:
            read(tmp_path / "x")
        except DocumentError as error:
            message = str(error)
        assert message
