"""What a rule may not say: every mistake is found at the start, at its place, with the id of the rule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakeward import OptionError
from lakeward.yamlfile.build import Mistakes, build
from lakeward_plugins.transforms.physics_validation import PhysicsValidation, Rule


def batch(**columns: Any) -> pa.RecordBatch:
    """Rows with `_row` from 1 on."""
    count = len(next(iter(columns.values())))
    return pa.RecordBatch.from_pydict({"_row": pa.array(range(1, count + 1), pa.int64()), **columns})


def in_range(low: float | None, high: float | None, **more: Any) -> PhysicsValidation:
    return PhysicsValidation(rules=[Rule("r", "range", "x", fail=[low, high], **more)])


def mistakes(**options: Any) -> list[tuple[str, str]]:
    try:
        build(PhysicsValidation, options, Path())
    except Mistakes as found:
        return [(".".join(map(str, mistake.path)), mistake.message) for mistake in found.mistakes]
    return []


@pytest.mark.parametrize(
    ("rule", "path", "message"),
    [
        ({"kind": "range", "fail": [3, 1]}, "fail", "low 3 is above high 1"),
        ({"kind": "range", "fail": [0, 1], "suspect": [-1, 1]}, "suspect", "-1 is outside of fail [0, 1]"),
        ({"kind": "range", "fail": [0, 1], "suspect": [2, None]}, "suspect", "2 is outside of fail [0, 1]"),
        ({"kind": "range", "fail": [0]}, "fail", "expected [low, high]"),
        ({"kind": "range", "fail": [0, math.nan]}, "fail", "expected [low, high]"),
        ({"kind": "range", "fail": [None, math.inf]}, "fail", "limits nothing"),
        ({"kind": "range"}, "fail", "has no limits"),
        ({"kind": "range", "fail": [0, 1], "value": 3}, "value", "takes field, fail, suspect, unit and when"),
        ({"kind": "range", "fail": 3}, "fail", "expected [low, high]"),
        ({"kind": "equals", "value": 3, "suspect": [0, 1]}, "suspect", "takes field, value, flag and when"),
        ({"kind": "equals"}, "value", "has field and value"),
        ({"kind": "equals", "value": math.nan}, "value", "finite number"),
        ({"kind": "rates", "fail": [0, 1]}, "kind", "did you mean 'rate'?"),
        ({"kind": "rate"}, "fail", "has no limits"),
        ({"kind": "rate", "fail": [0, 1]}, "fail", "expected a number from 0 on"),
        ({"kind": "rate", "fail": 1, "suspect": 2}, "suspect", "2 is above fail 1"),
        ({"kind": "rate", "fail": -1}, "fail", "expected a number from 0 on, got -1"),
        ({"kind": "rate", "fail": 1, "unit": "degC"}, "unit", "unit per time"),
        ({"kind": "rate", "fail": 1, "unit": "degC/mm"}, "unit", "mm cannot be converted to s"),
        ({"kind": "rate", "fail": 1, "method": "average"}, "method", "is of kind rate"),
        ({"kind": "spike", "fail": 1, "method": "mean"}, "method", "expected one of differential, average"),
        ({"kind": "spike", "fail": "10m"}, "fail", "expected a number from 0 on"),
        ({"kind": "flatline", "tolerance": 0.1}, "fail", "has no limits"),
        ({"kind": "flatline", "fail": "30m", "suspect": "60m"}, "suspect", "longer than fail"),
        ({"kind": "flatline", "fail": [0, 1]}, "fail", "expected a duration"),
        ({"kind": "flatline", "fail": 0}, "fail", "longer than 0s"),
        ({"kind": "flatline", "fail": "30m", "tolerance": -1}, "tolerance", "expected at least 0"),
        ({"kind": "attenuated", "fail": 1}, "period", "has field and period"),
        ({"kind": "attenuated", "period": "1h", "fail": 1, "suspect": 0.5}, "suspect", "0.5 is below fail 1"),
        ({"kind": "attenuated", "period": "1h", "fail": 1, "min_period": "2h"}, "min_period", "longer than period"),
        ({"kind": "climatology", "by": ["month"], "table": "gone.csv"}, "table", "gone.csv"),
        ({"kind": "relation", "field": "", "expr": "x <="}, "expr", "cannot be read"),
        ({"kind": "relation", "field": "", "expr": "x + 1"}, "expr", "this is a number"),
        ({"kind": "relation", "field": "", "expr": "__import__('os').system('true') == 0"}, "expr", "at character"),
        ({"kind": "range", "fail": [0, 1], "when": "y.real > 1"}, "when", "y.real"),
        ({"kind": "envelope", "field": "", "x": "x", "y": "y", "table": "gone.csv", "lower": 1}, "table", "gone.csv"),
        ({"kind": "range", "fail": [0, 1], "unit": "degCC"}, "unit", "degCC"),
    ],
)
def test_phy_15_a_wrong_rule_is_refused_at_its_place(rule: dict[str, Any], path: str, message: str) -> None:
    good = {"id": "good", "kind": "range", "field": "x", "fail": [0, 1]}
    found = mistakes(rules=[good, {"id": "wrong", "field": "x", **rule}])
    assert [place for place, _ in found] == [f"rules.1.{path}"]
    assert message in found[0][1]
    assert "'wrong'" in found[0][1] or path in ("kind", "method", "tolerance")  # these are mistakes of form


def test_phy_15_wrong_options_are_refused_at_their_place() -> None:
    rule = {"id": "r", "kind": "range", "field": "x", "fail": [0, 1]}
    assert mistakes()[0][0] == "profile"
    assert mistakes(profile="sed") == [
        ("profile", "expected one of seed, outdoor_wmo, indoor, wind_turbine, none; got text ('sed'), did you mean 'seed'?")
    ]
    assert mistakes(rules=[rule, rule]) == [("rules.1.id", "there is a rule 'r' already; give each an id of its own")]
    assert mistakes(profile="seed", fields={"temprature": "t"})[0][0] == "fields.temprature"
    assert mistakes(rules=[rule | {"id": "time"}])[0][0] == "rules.0.id"
    assert mistakes(rules=[rule], naive_timezone="Mars/Base")[0][0] == "naive_timezone"
    assert mistakes(rules=[rule], min_time="2030", max_time="2020-01-01")[0][0] == "min_time"
    assert mistakes(profile="seed", route={"fail": "dead"})[0][0] == "route.fail"


@pytest.mark.parametrize(
    ("transform", "column", "option", "message"),
    [
        (in_range(0, 1), {"y": [1.0]}, "rules[0].field", "no column 'x' for rule 'r'; columns are _row, y"),
        (in_range(0, 1), {"x": ["1"]}, "rules[0]", "`schematize` it to double before"),
        (in_range(0, 1), {"x": [b"1"]}, "rules[0]", "is binary"),
        (PhysicsValidation(rules=[Rule("r", "equals", "x", value="bad")]), {"x": [1]}, "rules[0]", "looks for the text 'bad'"),
        (PhysicsValidation(profile="seed"), {"temperature": ["20"]}, "profile", "'temperature-range' needs numbers"),
        (PhysicsValidation(profile="seed"), {"temp_c": [20.0]}, "fields", "no rule finds its column"),
        (PhysicsValidation(profile="seed", fields={"temperature": "t"}), {"humidity": [1.0]}, "fields.temperature", "no column 't'"),
        (
            PhysicsValidation(profile="seed", missing_sentinels={"humidity": ["?"]}),
            {"humidity": [1.0]},
            "missing_sentinels.humidity",
            "double",
        ),
        (PhysicsValidation(profile="seed"), {"humidity": [1.0], "severity": ["low"]}, "", "have a column 'severity' already"),
    ],
)
def test_phy_15_data_that_do_not_suit_are_refused_already_when_empty(
    transform: PhysicsValidation, column: dict[str, Any], option: str, message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        transform.apply(batch(**column).slice(0, 0))
    assert caught.value.option == option
    assert message in caught.value.message


def test_phy_15_units_that_do_not_fit_are_refused_with_the_rule() -> None:
    rule = {"id": "p", "kind": "range", "field": "pressure", "fail": [950, 1050], "unit": "degC"}
    for units in ({}, {"pressure": "Pa"}):
        [(place, message)] = mistakes(rules=[rule], units=units)
        assert place == "rules.0.unit"
        assert "'p'" in message
        assert "measure different things" in message
    [(place, message)] = mistakes(profile="seed", units={"pressure": "degC"})
    assert place == "units.pressure"
    assert "degC" in message
    assert "hPa" in message


def test_phy_15_mistakes_in_tables_say_what_is_wrong(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    curve = {"id": "c", "kind": "envelope", "x": "x", "y": "y", "upper": 1, "table": "table.csv"}
    climate = {"id": "c", "kind": "climatology", "field": "x", "by": ["month"], "table": "table.csv"}
    for text, rule, message in [
        ("x,y\n1,2\n", curve, "at least two points"),
        ("x,y\n1,2\n1,3\n", curve, "its own x"),
        ("x,y\n1,2\n2,\n", curve, "needs a number"),
        ("x,y\n1,2\n2,two\n", curve, "'two' in column y is no number"),
        ("x\n1\n", curve, "has no columns x and y"),
        ("month,high\n", climate, "needs lines"),
        ("month,most\n1,2\n", climate, "at least one of the columns"),
        ("week,high\n1,2\n", climate, "has no column month"),
        ("month,low,high\n1,3,2\n", climate, "suspect_low is above"),
        ("month,high\n1,3\n1,2\n", climate, "two lines with the same month"),
    ]:
        table.write_text(text)
        with pytest.raises(Mistakes) as caught:
            build(PhysicsValidation, {"rules": [rule]}, tmp_path)
        [mistake] = caught.value.mistakes
        assert mistake.path == ("rules", 0, "table")
        assert message in mistake.message
        assert "'c'" in mistake.message


@pytest.mark.parametrize(
    ("rule", "option"),
    [
        (Rule("r", "rate", "x", fail=1), "key[0]"),
        (Rule("r", "relation", expr="x <= y"), "rules[0].expr"),
        (Rule("r", "relation", expr="x <= 1", fields=["y"]), "rules[0].fields[0]"),
        (Rule("r", "range", "x", fail=[0, 1], when="y > 1"), "rules[0].when"),
        (Rule("r", "range", "x", fail=[0, 1], when="text > 1"), "rules[0]"),
    ],
)
def test_phy_15_absent_columns_are_told_at_the_option_that_names_them(rule: Rule, option: str) -> None:
    with pytest.raises(OptionError) as caught:
        PhysicsValidation(rules=[rule]).apply(batch(x=[1.0], text=["a"]).slice(0, 0))
    assert caught.value.option == option
    assert "'r'" in caught.value.message
