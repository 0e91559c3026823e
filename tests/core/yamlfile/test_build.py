from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from lakeward.errors import OptionError
from lakeward.options import option
from lakeward.secrets import Secret
from lakeward.yamlfile.build import Mistakes, build, duration, steps, suggestion

HERE = Path("/pipelines")
TOKEN = Secret("s3cr3t-t0ken", "env:TOKEN")


@define
class Rule:
    column: str = option(help="Which column.")
    limit: float = option(1.0, help="How much.", minimum=0, maximum=10)


@define
class Everything:
    text: str = option("", help="Text.")
    flag: bool = option(False, help="A flag.")
    count: int = option(1, help="A number.", minimum=1, maximum=5)
    ratio: float = option(0.5, help="A number.", minimum=0.0)
    path: Path = option(Path("x"), help="A path.")
    wait: timedelta = option(timedelta(0), help="A duration.", minimum=0, maximum=60)
    token: Secret | None = option(None, help="A secret.")
    mode: Literal["append", "overwrite"] = option("append", help="A choice.")
    level: Literal[1, 2] = option(1, help="A choice.")
    columns: str | list[str] = option(factory=list, help="One or many.")
    size: int | float | None = option(None, help="A number or nothing.")
    rule: Rule | None = option(None, help="One rule.")
    rules: list[Rule] = option(factory=list, help="Rules.")
    by_name: dict[str, Rule] = option(factory=dict, help="Rules by name.")
    secrets: dict[str, Secret] = option(factory=dict, help="Secrets by name.")
    anything: Any = option(None, help="Anything.")
    runtime: int = field(init=False, default=0)


def made(**data: Any) -> Everything:
    return build(Everything, data, HERE)


def mistakes(cls: type = Everything, /, **data: Any) -> dict[str, str]:
    """Messages by dotted path."""
    with pytest.raises(Mistakes) as caught:
        build(cls, data, HERE)
    found = {".".join(map(str, one.path)): one.message for one in caught.value.mistakes}
    assert len(found) == len(caught.value.mistakes)
    return found


# -- good values -------------------------------------------------------------------------------------------------------


def test_lists_and_mappings_may_be_json_in_a_text() -> None:
    found = made(columns=["a"], rule='{"column": "x", "limit": 2}', rules=' [{"column": "y"}]', by_name='{"z": {"column": "z"}}')
    assert (found.rule, found.rules, found.by_name) == (Rule("x", 2.0), [Rule("y")], {"z": Rule("z")})
    assert made(text="{not json", columns="[neither]", anything="{}").columns == "[neither]"


def test_mistakes_in_json_are_those_of_yaml() -> None:
    assert mistakes(rule='{"colum": "x", "limit": 11}', rules='[{"column": 1}]').keys() == {
        "rule.colum", "rule.column", "rule.limit", "rules.0.column",
    }  # fmt: skip
    assert mistakes(rules="[1,", by_name='{"a": 1, "a": 2}') == {
        "rules": "expected a list, got text that is no JSON: Expecting value: line 1 column 4 (char 3)",
        "by_name": "expected a mapping, got text that is no JSON: a key is written twice",
    }
    assert mistakes(rules="{}")["rules"] == "expected a list, got a mapping"
    assert "got text that is no JSON" in mistakes(rules="[" * 100_000)["rules"]
    assert mistakes(secrets='{"a": "plain"}').keys() == {"secrets.a"}


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("text", "5", "5"), ("flag", True, True), ("count", 5, 5), ("ratio", 2, 2.0), ("ratio", 0.0, 0.0), ("size", None, None),
        ("path", "a/../b", HERE / "a/../b"), ("path", "/abs", Path("/abs")), ("wait", "1.5s", timedelta(seconds=1.5)), ("size", 3, 3),
        ("wait", 3, timedelta(seconds=3)), ("token", TOKEN, TOKEN), ("token", None, None), ("level", 2, 2),
        ("mode", "overwrite", "overwrite"), ("columns", "a", "a"), ("columns", ["a", "b"], ["a", "b"]), ("size", 2.5, 2.5),
        ("rule", {"column": "a"}, Rule("a")), ("rule", None, None), ("rules", [{"column": "a", "limit": 3}], [Rule("a", 3.0)]),
        ("secrets", {"a": TOKEN}, {"a": TOKEN}),
        ("by_name", {"x": {"column": "a"}}, {"x": Rule("a")}), ("anything", {"a": [1, None]}, {"a": [1, None]}),
    ],
)  # fmt: skip
def test_a_good_value_becomes_its_type(name: str, given: Any, expected: Any) -> None:
    found = getattr(made(**{name: given}), name)
    assert found == expected
    assert type(found) is type(expected)


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert made(path="~/lake").path == Path("/home/somebody/lake")


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("text", 5, "expected text, got a whole number (5)"),
        ("text", None, "expected text, got nothing"),
        ("text", True, "expected text, got true or false"),
        ("text", ["a"], "expected text, got a list"),
        ("text", TOKEN, "expected text, got a secret"),
        ("flag", 1, "expected true or false, got a whole number (1)"),
        ("flag", "yes", "expected true or false, got text ('yes')"),
        ("count", True, "expected a whole number, got true or false"),
        ("count", 2.0, "expected a whole number, got a number (2.0)"),
        ("count", "2", "expected a whole number, got text ('2')"),
        ("count", 0, "expected from 1 to 5, got 0"),
        ("count", 6, "expected from 1 to 5, got 6"),
        ("ratio", False, "expected a number, got true or false"),
        ("ratio", -0.1, "expected at least 0, got -0.1"),
        ("ratio", float("nan"), "expected at least 0, got nan"),
        ("path", 5, "expected a path, got a whole number (5)"),
        ("wait", "5 parsecs", "expected a duration such as 5s, 250ms, 10m or 1h, got text ('5 parsecs')"),
        ("wait", TOKEN, "expected a duration such as 5s, 250ms, 10m or 1h, got a secret"),
        ("wait", -1, "expected from 0 to 60 s, got -1 s"),
        ("wait", "2m", "expected from 0 to 60 s, got 120 s"),
        ("mode", "apend", "expected one of append, overwrite; got text ('apend'), did you mean 'append'?"),
        ("mode", None, "expected one of append, overwrite; got nothing"),
        ("mode", ["append"], "expected one of append, overwrite; got a list"),
        ("mode", TOKEN, "expected one of append, overwrite; got a secret"),
        ("level", 3, "expected one of 1, 2; got a whole number (3)"),
        ("level", True, "expected one of 1, 2; got true or false"),
        ("level", 1.0, "expected one of 1, 2; got a number (1.0)"),
        ("columns", 5, "expected text, or a list of them, got a whole number (5)"),
        ("size", "big", "expected a whole number or a number or nothing, got text ('big')"),
        ("rules", {"column": "a"}, "expected a list, got a mapping"),
        ("rules", "ab", "expected a list, got text ('ab')"),
        ("by_name", ["a"], "expected a mapping, got a list"),
        ("rule", "a", "expected a mapping, got text ('a')"),
    ],
)
def test_a_wrong_value_is_told_what_was_expected_and_what_was_got(name: str, given: Any, message: str) -> None:
    assert mistakes(**{name: given}) == {name: message}


def test_a_long_value_is_not_repeated() -> None:
    assert mistakes(count="x" * 1000) == {"count": "expected a whole number, got text"}


@pytest.mark.parametrize("given", ["hunter2-hunter2", 31337313373, ["hunter2-hunter2"], {"hunter2-hunter2": 1}, 3.25, True])
def test_a_secret_written_out_is_refused_without_showing_it(given: Any) -> None:
    told = {**mistakes(token=given), **mistakes(secrets={"a": given})}
    assert set(told.values()) == {"is a secret: do not write it here, refer to it as ${env:NAME} or ${file:/path}"}
    assert list(told) == ["token", "secrets.a"]


def test_every_mistake_is_found_with_its_path() -> None:
    assert mistakes(
        text=1,
        count=9,
        ratio=-1,
        colums="a",
        columns=["a", 2],
        rule={},
        rules=[{"column": "a"}, {"column": 2, "limit": 11, "limt": 1}],
        by_name={"x": {"limit": "y"}},
    ) == {
        "text": "expected text, got a whole number (1)",
        "count": "expected from 1 to 5, got 9",
        "ratio": "expected at least 0, got -1",
        "colums": "unknown option, did you mean 'columns'?",
        "columns.1": "expected text, got a whole number (2)",
        "rule.column": "required, but missing",
        "rules.1.column": "expected text, got a whole number (2)",
        "rules.1.limit": "expected from 0 to 10, got 11",
        "rules.1.limt": "unknown option, did you mean 'limit'?",
        "by_name.x.column": "required, but missing",
        "by_name.x.limit": "expected a number, got text ('y')",
    }


def test_a_runtime_field_is_no_option() -> None:
    assert mistakes(runtime=1)["runtime"].startswith("unknown option; there are text, flag, count")


@define
class Checked:
    rules: list[Rule] = option(help="Rules.")
    low: float = option(0.0, help="Low.")
    high: float = option(1.0, help="High.")

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise OptionError("low", f"must not be above high ({self.high})")
        for index, rule in enumerate(self.rules):
            if rule.column == "bad":
                raise OptionError(f"rules[{index}].column", "is bad")


@define
class Outer:
    inner: dict[str, list[Checked]] = option(help="Deep inside.")


def test_a_mistake_that_the_component_finds_itself_has_its_whole_path() -> None:
    assert mistakes(Checked, rules=[], low=2.0) == {"low": "must not be above high (1.0)"}
    assert mistakes(Checked, rules=[{"column": "a"}, {"column": "bad"}]) == {"rules.1.column": "is bad"}
    assert mistakes(Outer, inner={"x": [{"rules": []}, {"rules": [{"column": "bad"}]}]}) == {"inner.x.1.rules.0.column": "is bad"}


@define
class Stubborn:
    size: int = option(1, help="Size.")

    def __attrs_post_init__(self) -> None:
        raise {1: KeyError("size"), 2: ZeroDivisionError("division by zero"), 3: RuntimeError()}[self.size]


@pytest.mark.parametrize(("size", "words"), [(1, "KeyError"), (2, "division by zero"), (3, "RuntimeError")])
def test_a_component_that_fails_otherwise_is_a_mistake_too(size: int, words: str) -> None:
    for cls, data, path in ((Stubborn, {"size": size}, ""), (Holder, {"one": {"size": size}}, "one")):
        (found,) = mistakes(cls, **data).items()
        assert found[0] == path
        assert words in found[1]


@define
class Holder:
    one: Stubborn = option(help="One.")


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_options_are_a_mapping(data: Any) -> None:
    with pytest.raises(Mistakes, match="expected a mapping, got "):
        build(Everything, data, HERE)


# -- durations, paths, guesses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("250ms", 0.25), ("10m", 600), ("1.5h", 5400), ("1d", 86400), ("7us", 7e-6), (" 5 s ", 5), (0, 0), (2.5, 2.5)],
)
def test_durations_have_a_unit_or_are_seconds(text: object, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["5", "s", "-5s", "5 S", "1h30m", "", None, True, [5], float("inf"), float("nan"), 1e300, "9" * 20 + "d"])
def test_what_is_no_duration_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a duration such as 5s, 250ms, 10m or 1h, got "):
        duration(text)


@given(
    st.lists(st.from_regex(r"[a-z_][a-z0-9_-]*", fullmatch=True) | st.integers(0, 99), min_size=1).filter(
        lambda path: isinstance(path[0], str)
    )
)
def test_steps_undo_the_dotted_form(path: list[str | int]) -> None:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
    assert steps(text) == tuple(path)


def test_a_guess_is_made_only_when_one_is_near() -> None:
    assert suggestion("tempratur", ["temperature", "humidity"]) == ", did you mean 'temperature'?"
    assert suggestion("x", ["temperature", "humidity"]) == "; there are temperature, humidity"
    assert suggestion("x", []) == ""
