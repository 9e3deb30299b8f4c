from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from metacalo.config import Settings
from metacalo.errors import ConfigError, MetacaloError, UnknownNameError
from metacalo.generate import GenerateSettings
from metacalo.pretraining.settings import PretrainSettings


class Inner(Settings):
    depth: int = Field(2, ge=1)
    flavour: Literal["plain", "spicy"] = "plain"


class Outer(Settings):
    steps: int = 10
    rate: float = Field(0.1, gt=0)
    patch: tuple[int, int, int] = (9, 16, 1)
    inner: Inner = Inner()


class Pair(Settings):
    low: int
    high: int

    @model_validator(mode="after")
    def _ordered(self) -> Pair:
        if self.low > self.high:
            message = f"low = {self.low} is above high = {self.high}"
            raise ValueError(message)
        return self


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"stpes": 3}, "settings: unknown key 'stpes'; did you mean 'steps'?"),
        ({"inner": {"dept": 3}}, "settings: unknown key 'inner.dept'; did you mean 'depth'?"),
        ({"qqqq": 3}, "settings: unknown key 'qqqq' (known: inner, patch, rate, steps)"),
        ({"inner": {"zzzz": 3}}, "settings: unknown key 'inner.zzzz' (known: depth, flavour)"),
        ({"rate": 0}, "settings: 'rate' = 0 is not valid: Input should be greater than 0"),
        ({"rate": float("nan")}, "settings: 'rate' = nan is not valid: Input should be a finite number"),
        (
            {"inner": {"depth": 0}},
            "settings: 'inner.depth' = 0 is not valid: Input should be greater than or equal to 1",
        ),
        ({"patch": (9, 16, "x")}, "settings: 'patch.2' = 'x' is not valid: Input should be a valid integer"),
    ],
)
def test_a_wrong_value_gives_one_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Outer.build(values)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_misspelt_choice_has_a_near_match() -> None:
    with pytest.raises(ConfigError, match=r"'inner.flavour' = 'spiced' is not valid.*did you mean 'spicy'\?$"):
        Outer.build({"inner": {"flavour": "spiced"}})


def test_a_misspelt_key_is_reported_before_the_key_that_is_missing_because_of_it() -> None:
    with pytest.raises(ConfigError, match=r"^settings: unknown key 'lwo'; did you mean 'low'\?$"):
        Pair.build({"lwo": 1, "high": 2})


def test_a_contradiction_is_reported_as_the_validator_says_it() -> None:
    with pytest.raises(ConfigError, match=r"^mine\.toml: low = 3 is above high = 2$"):
        Pair.build({"low": 3, "high": 2}, source="mine.toml")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().steps = 4  # type: ignore[misc]


@given(
    st.integers(),
    st.floats(min_value=1e-300, allow_infinity=False),
    st.tuples(st.integers(), st.integers(), st.integers()),
    st.integers(min_value=1),
)
def test_what_is_saved_as_json_builds_the_same_settings(
    steps: int, rate: float, patch: tuple[int, int, int], depth: int
) -> None:
    settings = Outer(steps=steps, rate=rate, patch=patch, inner=Inner(depth=depth))
    assert Outer.build(settings.model_dump(mode="json")) == settings


def test_toml_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("steps = 3\nrate = 0.5\n[inner]\ndepth = 7\n", encoding="utf-8")
    assert Outer.from_toml(path) == Outer(steps=3, rate=0.5, inner=Inner(depth=7))
    assert Outer.from_toml(path, steps=4, rate=None) == Outer(steps=4, rate=0.5, inner=Inner(depth=7))
    assert Outer.resolve(path, steps=0).steps == 0  # zero is a value, None is none
    assert Outer.resolve(None, steps=None, rate=2.0) == Outer(rate=2.0)
    assert Outer.resolve(path, inner={"flavour": "spicy", "depth": None}).inner == Inner(depth=7, flavour="spicy")
    assert Outer.resolve(path, inner={"depth": None}) == Outer.from_toml(path)
    assert Outer.resolve(None, inner={"depth": 2}).inner == Inner(depth=2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"steps = = 3", r"not a readable TOML file \("),
        (b"steps = '\xff'", r"not a readable TOML file \("),
        (b"stepz = 3", r"unknown key 'stepz'; did you mean 'steps'\?$"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: bytes, sentence: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=rf"mine\.toml: {sentence}"):
        Outer.from_toml(path)


def test_a_missing_file_and_a_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: there is no such settings file$"):
        Outer.from_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="not a readable TOML file"):
        Outer.from_toml(tmp_path)


def test_unknown_names() -> None:
    error = UnknownNameError("task", "pblr", ["siw", "pblar"])
    assert str(error) == "unknown task 'pblr' (known: pblar, siw); did you mean 'pblar'?"
    assert isinstance(error, MetacaloError)
    assert str(UnknownNameError("base", "xyz", [])) == "unknown base 'xyz' (known: none)"


def test_a_file_is_laid_over_given_values_table_by_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("rate = 0.5\n[inner]\ndepth = 7\n", encoding="utf-8")
    onto = {"steps": 3, "rate": 0.2, "inner": {"depth": 4, "flavour": "spicy"}}
    expected = Outer(steps=3, rate=0.5, inner=Inner(depth=7, flavour="spicy"))
    assert Outer.from_toml(path, onto=onto) == expected
    assert Outer.resolve(path, onto=onto, steps=9).steps == 9
    assert Outer.resolve(None, onto=onto, rate=None) == Outer(**onto)
    assert onto["inner"] == {"depth": 4, "flavour": "spicy"}
    with pytest.raises(ConfigError, match=r"mine\.toml: unknown key 'inner.dept'; did you mean 'depth'\?"):
        Outer.from_toml(path, onto={"inner": {"dept": 4}})


def test_letters_that_no_text_has_are_reported() -> None:
    with pytest.raises(ConfigError, match="contains characters that are not valid Unicode"):
        GenerateSettings.build({"energy": "a\udcff"})


def test_a_base_has_a_name_that_its_config_can_hold() -> None:
    with pytest.raises(ConfigError, match=r"'name' = .* is not valid: String should have at most 200 characters"):
        PretrainSettings.build({"name": 300 * "x"})
