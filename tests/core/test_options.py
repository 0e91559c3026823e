from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import define, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from lakeward.cli.described import describe, parts
from lakeward.errors import OptionError
from lakeward.options import option, type_words
from lakeward.secrets import Secret

Value = bool | int | float | str


@frozen
class Rule:
    column: str = option("all", help="Which column.")
    limit: float = option(1.0, help="How much.")


@define
class Everything:
    path: Path = option(help="Where the files are.")
    mode: Literal["append", "overwrite"] = option("append", help="How.")
    radius: float = option(50.0, help="How far.", unit="m", minimum=0)
    wait: timedelta = option(timedelta(minutes=1.5), help="How long.")
    token: Secret | None = option(None, help="Who.")
    flag: bool = option(True, help="Whether.")
    columns: list[str] = option(factory=lambda: ["a", "b"], help="Which.")
    rule: Rule = option(factory=Rule, help="What.")
    rules: dict[str, Rule] = option(factory=dict, help="What by name.")
    runtime: int = field(init=False, default=0)


def test_describe_says_each_option_in_the_order_of_the_class() -> None:
    found = [(one.name, one.type, one.default, one.required, one.unit) for one in describe(Everything)]
    assert found == [
        ("path", "a path", "", True, ""),
        ("mode", "one of append, overwrite", "append", False, ""),
        ("radius", "a number", "50.0", False, "m"),
        ("wait", "a duration", "90s", False, ""),
        ("token", "a secret or nothing", "none", False, ""),
        ("flag", "true or false", "true", False, ""),
        ("columns", "a list of text", "[a, b]", False, ""),
        ("rule", "a mapping with column, limit", "column: all, limit: 1.0", False, ""),
        ("rules", "a mapping of names to a mapping with column, limit", "{}", False, ""),
    ]
    assert describe(Everything)[2].help == "How far."


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (str, "text"), (int, "a whole number"), (Any, "any value"), (object, "any value"), (int | None, "a whole number or nothing"),
        (tuple[str, ...], "a list of text"), (list[list[int]], "a list of lists of whole numbers"),
        (list[str] | None, "a list of text or nothing"), (str | list[str], "text, or a list of them"),
        (list[float | None], "a list of (a number or nothing)"), (list[Rule], "a list of mappings with column, limit"),
        (dict[str, bool], "a mapping of names to true or false"), (dict[str, Any], "a mapping"),
        (Literal[1, "a"], "one of 1, a"), (list[Literal["a", "b"]], "a list of any of a, b"),
        (dict[str, float | Rule], "a mapping of names to (a number or a mapping with column, limit)"),
        (dict[str, list[Literal["a", "b"]] | Literal["a", "b"]], "a mapping of names to (one of a, b, or a list of them)"),
        (Value | dict[str, Value | list[Value]], "a value or a mapping of names to (a value, or a list of them)"),
    ],
)  # fmt: skip
def test_types_have_words(kind: Any, words: str) -> None:
    assert type_words(kind) == words


@define
class Ranged:
    both: float = option(5, help="A number.", minimum=1, maximum=1_000_000)
    low: int | None = option(None, help="A number or nothing.", minimum=-1)
    high: timedelta = option(timedelta(0), help="A duration.", maximum=3600)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("both", 0, "both: expected from 1 to 1,000,000, got 0"),
        ("both", 2e6 + 0.5, "both: expected from 1 to 1,000,000, got 2,000,000.5"),
        ("both", float("nan"), "both: expected from 1 to 1,000,000, got nan"), ("low", -2, "low: expected at least -1, got -2"),
        ("high", timedelta(hours=2), "high: expected at most 3,600 s, got 7,200 s"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_also_in_python(name: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Ranged(**{name: value})
    assert str(caught.value) == message
    assert caught.value.option == name


@given(st.floats(1, 1_000_000), st.none() | st.integers(-1), st.timedeltas(max_value=timedelta(hours=1)))
def test_a_value_in_range_is_taken(both: float, low: int | None, high: timedelta) -> None:
    assert Ranged(both, low, high) == Ranged(both=both, low=low, high=high)


def test_the_limits_themselves_are_allowed_and_changes_are_checked() -> None:
    ranged = Ranged(1, -1, timedelta(hours=1))
    ranged.both = 1_000_000
    with pytest.raises(OptionError):
        ranged.both = 0


def test_options_that_are_mappings_with_options_are_found_wherever_they_stand() -> None:
    assert list(parts(Everything)) == [("rule", Rule), ("rules.NAME", Rule)]


def test_an_option_without_default_is_required() -> None:
    with pytest.raises(TypeError, match="path"):
        Everything()  # type: ignore[call-arg]  # the point


def test_a_factory_gives_each_component_its_own_value() -> None:
    one, other = Everything(Path("a")), Everything(Path("b"))
    one.columns.append("c")
    assert other.columns == ["a", "b"]
