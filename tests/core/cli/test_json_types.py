"""The schema of a class of options takes what `build` takes, and nothing else."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lakeward.cli.json_types import Types
from lakeward.options import option
from lakeward.secrets import Secret, SecretReference
from lakeward.yamlfile.build import Mistakes, build


@define
class Rule:
    """One rule."""

    column: str = option(help="Which column.")
    limit: float = option(1.0, help="How much.", unit="m", minimum=0, maximum=10)


@define
class Tree:
    """Holds itself."""

    name: str = option("", help="A name.")
    below: list[Tree] = option(factory=list, help="More of them.")


@define
class Everything:
    text: str = option("", help="Text.")
    flag: bool = option(False, help="A flag.")
    count: int = option(1, help="A number.", minimum=1, maximum=5)
    ratio: float = option(0.5, help="A number.", minimum=0.0)
    path: Path = option(Path("x"), help="A path.")
    wait: timedelta = option(timedelta(seconds=5), help="A duration.", minimum=0, maximum=7200)
    token: Secret | None = option(None, help="A secret.")
    given: Secret = option(SecretReference("env", "KEY"), help="A secret.")
    mode: Literal["append", "overwrite"] = option("append", help="A choice.")
    level: Literal[1, 2] | None = option(1, help="A choice.")
    columns: str | list[str] = option(factory=list, help="One or many.")
    size: int | float | None = option(None, help="A number or nothing.")
    value: bool | int | float | str | list[int] = option(0, help="A value.")
    rule: Rule | None = option(None, help="One rule.")
    rules: list[Rule] = option(factory=list, help="Rules.")
    by_name: dict[str, float | Rule] = option(factory=dict, help="Rules by name.")
    known: dict[Literal["a", "b"], int] = option(factory=dict, help="Numbers by known names.")
    tree: Tree = option(factory=Tree, help="A tree.")
    anything: Any = option(None, help="Anything.")
    runtime: int = field(init=False, default=0)


TYPES = Types()
SCHEMA = TYPES.options(Everything) | {"$defs": TYPES.definitions}
VALIDATOR = Draft202012Validator(SCHEMA)

SCALARS = [
    None, True, False, *range(-2, 12), 7200, 7201, 0.5, 1.5, -0.5, 60.5, "", "x", "append", "5s", "10 m", "1.5h", "5 weeks", "-5s", "a",
    "2",
]  # fmt: skip
scalars = st.sampled_from(SCALARS)
names = st.sampled_from(["a", "b", "column", "limit", "name", "below", "wrong"])
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6)
rules = st.fixed_dictionaries({"column": scalars}, optional={"limit": scalars})


def taken(data: dict[str, Any]) -> bool:
    try:
        build(Everything, data, Path())
    except Mistakes:
        return False
    return True


@pytest.mark.parametrize(
    "name", sorted(SCHEMA["properties"].keys() - {"token", "given"})
)  # a secret is a reference, and a value when built
def test_a_scalar_is_right_where_it_would_be_taken(name: str) -> None:
    for value in SCALARS:
        assert VALIDATOR.is_valid({name: value}) == taken({name: value}), value
        assert VALIDATOR.is_valid({name: [value]}) == taken({name: [value]}), [value]


@pytest.mark.parametrize("name", ["columns", "value", "rule", "rules", "by_name", "known", "tree", "anything"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_value_is_right_where_it_would_be_taken(name: str, data: st.DataObject) -> None:
    value = data.draw(values | rules | st.lists(rules, max_size=2) | st.dictionaries(names, rules, max_size=2))
    assert VALIDATOR.is_valid({name: value}) == taken({name: value}), value


@example(data={"unknown": 1})
@given(st.dictionaries(st.sampled_from(["text", "unknown", "runtime", "rule"]), values, max_size=2))
@settings(max_examples=40, deadline=None)
def test_unknown_options_are_wrong(data: dict[str, Any]) -> None:
    assert VALIDATOR.is_valid(data) == taken(data)


@pytest.mark.parametrize("name", ["flag", "count", "ratio", "wait", "mode", "level", "columns", "size", "rule", "rules", "by_name", "text"])
def test_a_variable_may_stand_for_any_value_but_a_secret(name: str) -> None:
    for variable in ("${SIZE}", "${SIZE:-5}", "${LOWER_case:-}"):
        assert VALIDATOR.is_valid({name: variable})
    assert not VALIDATOR.is_valid({"token": "${TOKEN}"})


def test_a_secret_is_a_reference() -> None:
    assert VALIDATOR.is_valid({"token": "${env:TOKEN}", "given": "${file:/run/secrets/key}"})
    for wrong in ("plain text", "${TOKEN}", "x${env:TOKEN}", "${env:}", 5):
        assert not VALIDATOR.is_valid({"token": wrong})
    assert not VALIDATOR.is_valid({"count": "${env:TOKEN}"})


@pytest.mark.parametrize("name", ["rule", "rules", "by_name", "tree"])
def test_a_list_or_mapping_may_be_json_in_a_text(name: str) -> None:
    assert VALIDATOR.is_valid({name: ' {"column": "x"}'})
    assert not VALIDATOR.is_valid({name: "column: x"})


def test_descriptions_units_limits_and_defaults_are_told() -> None:
    assert SCHEMA["properties"]["wait"] == {
        "description": "A duration.", "type": ["number", "string"], "minimum": 0, "maximum": 7200, "default": "5s",
        "pattern": SCHEMA["properties"]["wait"]["pattern"],
    }  # fmt: skip
    (rule,) = [found for name, found in TYPES.definitions.items() if name.endswith(".Rule")]
    assert rule["description"] == "One rule."
    assert rule["required"] == ["column"]
    assert rule["properties"]["limit"]["description"] == "How much. In m."
    assert SCHEMA["properties"]["given"]["default"] == "${env:KEY}"
    assert SCHEMA["properties"]["tree"]["default"] == {"name": "", "below": []}
    assert "runtime" not in SCHEMA["properties"]


def test_the_schema_is_one_and_its_defaults_are_right() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    defaults = {name: one["default"] for name, one in SCHEMA["properties"].items() if "default" in one}
    assert list(VALIDATOR.iter_errors(defaults)) == []
