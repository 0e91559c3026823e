"""Units and expressions through the component: the same weather in other units gets the same flags."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakeward import END_OF_INPUT, OptionError
from lakeward.yamlfile.build import Mistakes, build
from lakeward_plugins.transforms.physics_validation import PhysicsValidation, Rule

RULES = [
    Rule("t-range", "range", "temperature", fail=[-5, 25], suspect=[0, 20], unit="degC"),
    Rule("t-rate", "rate", "temperature", suspect=1.03, fail=3.07, unit="degC/min"),
    Rule("t-spike", "spike", "temperature", suspect=1.55, fail=4.13),
    Rule("t-flat", "flatline", "temperature", tolerance=0.57, suspect=timedelta(minutes=2)),
    Rule("t-att", "attenuated", "temperature", suspect=1.23, period=timedelta(minutes=5)),
    Rule("p-range", "range", "pressure", fail=[940, 1060], suspect=[965, 1040], unit="hPa"),
    Rule("p-rate", "rate", "pressure", suspect=9.77, unit="hPa/min"),
    Rule("p-alt", "relation", expr="abs(pressure - std_pressure(height_meters)) <= 40.123", flag="suspect"),
]


def weather() -> dict[str, np.ndarray[Any, Any]]:
    """Hundredths of degC, hPa and m, so that nothing lies on a limit of the rules by more than rounding."""
    random = np.random.default_rng(5)
    temperature = np.round(np.cumsum(random.choice([0, 0, 0.5, -0.5, 2, -2], 400)) % 30 - 5 + random.normal(0, 0.3, 400), 3) + 0.0001
    return {
        "temperature": temperature,
        "pressure": np.round(random.normal(1000, 25, 400), 2) + 0.001,
        "height_meters": np.round(random.uniform(0, 200, 400), 1),
    }


def flags(columns: dict[str, np.ndarray[Any, Any]], **options: Any) -> list[tuple[int, ...]]:
    count = len(columns["temperature"])
    times = pa.array(1_600_000_000 + 60 * np.arange(count)).cast(pa.timestamp("s", "UTC"))
    rows = pa.RecordBatch.from_pydict({"_row": np.arange(count), "sensor_id": ["a"] * count, "timestamp": times, **columns})
    transform = PhysicsValidation(rules=RULES, **options)
    parts = [part for output in (transform.apply(rows), transform.finish(END_OF_INPUT)) for part in output.values()]
    table = pa.Table.from_batches(parts).sort_by("_row")
    broken = [tuple(reason["rule_id"] for reason in reasons) for reasons in table["qc_reasons"].to_pylist()]
    return list(zip(*(table[name].to_pylist() for name in ("qc_row", "qc_temperature", "qc_pressure")), broken, strict=True))


@pytest.mark.parametrize(
    ("name", "unit", "scale", "offset"),
    [
        ("temperature", "degF", 1.8, 32.0),
        ("temperature", "K", 1.0, 273.15),
        ("temperature", "Cel", 1.0, 0.0),
        ("pressure", "Pa", 100.0, 0.0),
        ("pressure", "bar", 0.001, 0.0),
        ("pressure", "kPa", 0.1, 0.0),
        ("pressure", "mmHg", 1 / 1.33322387415, 0.0),
        ("height_meters", "ft", 1 / 0.3048, 0.0),
    ],
)
def test_phy_07_other_units_give_the_same_flags(name: str, unit: str, scale: float, offset: float) -> None:
    columns = weather()
    plain = flags(columns)
    assert {flag for row in plain for flag in row[:3]} >= {1, 3, 4}
    assert {rule for row in plain for rule in row[3]} == {rule.id for rule in RULES}
    assert flags(columns | {name: columns[name] * scale + offset}, units={name: unit}) == plain


def test_a_profile_takes_columns_in_other_units() -> None:
    rows = pa.RecordBatch.from_pydict(
        {"_row": range(4), "temperature": [140.0, 140.1, -4.0, -4.1], "pressure": [95000, 94999, 105000, 105001]}
    )
    found = PhysicsValidation(profile="seed", units={"temperature": "[degF]", "pressure": "Pa"}).apply(rows)
    both = sorted((row["_row"], row["qc_temperature"], row["qc_pressure"]) for part in found.values() for row in part.to_pylist())
    assert both == [(0, 1, 1), (1, 4, 4), (2, 1, 1), (3, 4, 4)]
    assert {row["temperature"] for part in found.values() for row in part.to_pylist()} == {140.0, 140.1, -4.0, -4.1}


def test_reasons_are_in_the_unit_of_the_rule() -> None:
    rows = pa.RecordBatch.from_pydict({"_row": [0], "temperature": [212.0]})
    rule = Rule("hot", "range", "temperature", fail=[0, 320], unit="K")
    [row] = PhysicsValidation(rules=[rule], units={"temperature": "degF"}).apply(rows)["anomalies"].to_pylist()
    assert row["qc_reasons"] == [
        {
            "rule_id": "hot", "fields": ["temperature"], "flag": 4, "value": 373.15, "limit": 320.0, "unit": "K",
            "message": "temperature 373.15 is above 320 K",
        }
    ]  # fmt: skip


def test_a_relation_says_what_was_compared() -> None:
    rows = pa.RecordBatch.from_pydict({"_row": [0], "temperature": [10.0], "dew_point": [12.5]})
    rule = Rule("dew", "relation", expr="dew_point <= temperature + 0.1", fields=["dew_point"], flag="fail")
    [row] = PhysicsValidation(rules=[rule]).apply(rows)["anomalies"].to_pylist()
    [reason] = row["qc_reasons"]
    assert (reason["fields"], reason["value"], reason["limit"]) == (["dew_point"], 12.5, 10.1)
    assert reason["message"] == "not true: dew_point <= temperature + 0.1, with 12.5 and 10.1"
    assert "qc_temperature" not in row


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true') == 0", "x.__class__ == 1", "x[0] > 1", "(lambda: 1)() == 1", "[y for y in x] == 1",
        "exec('1') == 1", "open('/etc/passwd') == 1", "x ** 10 ** 10 ** 10 > 1", "f'{x}' == 1", "(x := 1) == 1", "x if x else 1",
        "abs(x, *x) > 1", "round(x, ndigits=3) == 1", "9" * 2000 + " > x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("option", ["expr", "when"])
def test_phy_14_hostile_expressions_are_refused_at_load(expression: str, option: str) -> None:
    rule = {"id": "bad", "kind": "relation", "expr": "x > 1", option: expression}
    with pytest.raises(Mistakes) as caught:
        build(PhysicsValidation, {"rules": [rule]}, Path())
    assert [mistake.path for mistake in caught.value.mistakes] == [("rules", 0, option)]
    assert "'bad'" in caught.value.mistakes[0].message
    with pytest.raises(OptionError):
        Rule(**rule)


def test_constants_stand_for_columns() -> None:
    rows = pa.RecordBatch.from_pydict({"_row": range(3), "power_output": [1000.0, 2300.0, math.nan]})
    transform = PhysicsValidation(profile="wind_turbine", constants={"rated_power": 2050})
    found = transform.apply(rows)
    assert [row["_row"] for row in found["anomalies"].to_pylist()] == [1]
    assert "qc_rated_power" not in found["valid"].schema.names
