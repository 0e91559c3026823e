"""Physics validation; tests that hold an invariant of the specification of quality flags carry its number."""

from __future__ import annotations

import logging
import math
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import OptionError
from lakeward.testing import TransformContract
from lakeward.yamlfile.build import Mistakes, build
from lakeward_plugins.transforms.physics_validation.validator import PhysicsValidation, Route, Rule

DATA = Path(os.environ.get("LAKEWARD_TEST_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
QUICK = settings(max_examples=60, deadline=None)
STRENGTH = {9: 0, 2: 1, 1: 2, 3: 3, 4: 4}


def batch(**columns: Any) -> pa.RecordBatch:
    """Rows with `_row` from 1 on."""
    count = len(next(iter(columns.values())))
    return pa.RecordBatch.from_pydict({"_row": pa.array(range(1, count + 1), pa.int64()), **columns})


def checked(transform: PhysicsValidation, rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """All rows of both ports, in the order in which they came."""
    both: list[dict[str, Any]] = [row for part in transform.apply(rows).values() for row in part.to_pylist()]
    return sorted(both, key=lambda row: int(row["_row"]))


def in_range(low: float | None, high: float | None, **more: Any) -> PhysicsValidation:
    return PhysicsValidation(rules=[Rule("r", "range", "x", fail=[low, high], **more)])


class TestPhysicsValidationContract(TransformContract):
    def make(self) -> PhysicsValidation:
        own = Rule("warm", "range", "temperature", fail=[None, 55], suspect=[-10, 45])
        return PhysicsValidation(profile="seed", rules=[own], missing_sentinels={"pressure": [-9999]})

    def rows(self) -> pa.RecordBatch:
        return batch(
            sensor_id=["a", "b"] * 12,
            temperature=[20.0, 46, 61, -20, -21, None, math.nan, math.inf] * 3,
            humidity=[50.0, 4, 96, None] * 6,
            pressure=[1000.0, -9999, 949] * 8,
            anomaly_flag=[0, 0, 0, 1, None, 0] * 4,
        )


# -- invariants --------------------------------------------------------------------------------------------------------

readings = st.one_of(st.none(), st.sampled_from([math.nan, math.inf, -math.inf, -9999.0, 0.0]), st.floats(-20, 20))
tables = st.lists(st.tuples(readings, readings), min_size=1, max_size=30).map(
    lambda rows: batch(x=pa.array([x for x, _ in rows], pa.float64()), y=pa.array([y for _, y in rows], pa.float64()))
)


@st.composite
def limits(draw: st.DrawFn) -> dict[str, Any]:
    """Options of a range rule: four ascending limits, of which some are left out."""
    low, suspect_low, suspect_high, high = sorted(draw(st.lists(st.integers(-20, 20), min_size=4, max_size=4)))
    chosen = draw(st.sampled_from([("fail",), ("suspect",), ("fail", "suspect")]))
    given_limits: dict[str, list[float | None]] = {"fail": [low, high], "suspect": [suspect_low, suspect_high]}
    open_side = draw(st.sampled_from([None, 0, 1]))
    for name in chosen:
        if open_side is not None:
            given_limits[name][open_side] = None
    return {name: list(given_limits[name]) for name in chosen}


@st.composite
def rule_sets(draw: st.DrawFn, least: int = 1) -> list[Rule]:
    count = draw(st.integers(least, 4))
    rules = [Rule(f"r{n}", "range", draw(st.sampled_from("xy")), **draw(limits())) for n in range(count)]
    return [*rules, Rule("zero", "equals", "x", value=0, flag="suspect")] if draw(st.booleans()) else rules


def flag_by_hand(rule: Rule, value: float | None) -> int:
    if value is None or not math.isfinite(value) or value == -9999:
        return 9
    if rule.kind == "equals":
        return 3 if value == rule.value else 1
    for flag, pair in ((4, rule.fail), (3, rule.suspect)):
        low, high = pair or (None, None)
        if (low is not None and value < low) or (high is not None and value > high):
            return flag
    return 1


@given(rows=tables, rules=rule_sets())
@QUICK
def test_flags_and_reasons_equal_those_of_a_rule_by_rule_reading(rows: pa.RecordBatch, rules: list[Rule]) -> None:
    sentinels: dict[str, list[Any]] = {rule.field: [-9999] for rule in rules}
    for row in checked(PhysicsValidation(rules=rules, missing_sentinels=sentinels), rows):
        flags = {rule.id: flag_by_hand(rule, row[rule.field]) for rule in rules}
        assert row["qc_row"] == max(flags.values(), key=STRENGTH.__getitem__)
        for name in sentinels:
            assert row[f"qc_{name}"] == max((flags[rule.id] for rule in rules if rule.field == name), key=STRENGTH.__getitem__)
        wanted = [(rule.id, rule.field, flags[rule.id], row[rule.field]) for rule in rules if flags[rule.id] in (3, 4)]
        assert [(r["rule_id"], r["field"], r["flag"], r["value"]) for r in row["qc_reasons"]] == sorted(wanted)


@given(rows=tables, rules=rule_sets(), route=st.builds(Route, *[st.sampled_from(["valid", "anomalies"])] * 3))
@QUICK
def test_phy_2_each_row_is_in_exactly_one_port(rows: pa.RecordBatch, rules: list[Rule], route: Route) -> None:
    ports = PhysicsValidation(rules=rules, route=route).apply(rows)
    assert list(ports) == ["valid", "anomalies"]
    keys: list[Any] = [key for part in ports.values() for key in part["_row"].to_pylist()]
    assert sorted(keys) == rows["_row"].to_pylist()
    wanted: dict[Any, str] = {4: route.fail, 3: route.suspect, 9: route.missing}
    for port, part in ports.items():
        assert {wanted.get(flag, "valid") for flag in part["qc_row"].to_pylist()} <= {port}


@given(rows=tables, rules=rule_sets())
@QUICK
def test_phy_3_no_value_is_altered(rows: pa.RecordBatch, rules: list[Rule]) -> None:
    ports = PhysicsValidation(rules=rules, missing_sentinels={rules[0].field: [-9999]}).apply(rows)
    for part in ports.values():
        before = rows.take(pc.subtract(part["_row"], 1))
        for name in rows.schema.names:
            assert part[name].is_null().equals(before[name].is_null())
            assert part[name].drop_null().view(pa.int64()).equals(before[name].drop_null().view(pa.int64()))


def test_phy_3_null_nan_infinity_and_sentinels_are_missing() -> None:
    transform = PhysicsValidation(rules=[Rule("r", "range", "x", fail=[0, 1])], missing_sentinels={"x": [-9999, -777]})
    rows = checked(transform, batch(x=[None, math.nan, math.inf, -math.inf, -9999.0, -777.0, 0.5]))
    assert [row["qc_x"] for row in rows] == [9, 9, 9, 9, 9, 9, 1]
    assert all(row["qc_reasons"] == [] and row["validation_error"] is None and row["severity"] == "none" for row in rows)


@pytest.mark.parametrize(("low", "high"), [(-20.0, 60.0), (5, 95), (950, 1050), (20, 25), (0.1, 0.3), (-0.0, 0.0)])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_phy_4_bounds_are_inclusive_and_the_next_number_fails(low: float, high: float, kind: type[Any]) -> None:
    bottom, top = kind(low), kind(high)
    values = np.array([bottom, top, np.nextafter(bottom, kind(-math.inf)), np.nextafter(top, kind(math.inf))], kind)
    assert [row["qc_x"] for row in checked(in_range(low, high), batch(x=values))] == [1, 1, 4, 4]


def test_phy_4_large_whole_numbers_are_not_rounded() -> None:
    rows = batch(x=pa.array([2**53, 2**53 + 1, -(2**63), 2**63 - 1, 0], pa.int64()))
    assert [row["qc_x"] for row in checked(in_range(0, 2.0**53), rows)] == [1, 4, 4, 4, 1]


@given(rows=tables, rules=rule_sets(least=2), data=st.data())
@QUICK
def test_phy_5_the_order_of_rules_changes_nothing(rows: pa.RecordBatch, rules: list[Rule], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rules))
    one, other = PhysicsValidation(rules=rules).apply(rows), PhysicsValidation(rules=shuffled).apply(rows)
    assert {port: repr(part.select(sorted(part.schema.names)).to_pylist()) for port, part in one.items()} == {
        port: repr(part.select(sorted(part.schema.names)).to_pylist()) for port, part in other.items()
    }


@given(rows=tables, rules=rule_sets(), more=limits(), field=st.sampled_from("xy"))
@QUICK
def test_phy_6_one_more_rule_never_lowers_a_flag(rows: pa.RecordBatch, rules: list[Rule], more: dict[str, Any], field: str) -> None:
    before = checked(PhysicsValidation(rules=rules), rows)
    after = checked(PhysicsValidation(rules=[*rules, Rule("more", "range", field, **more)]), rows)
    for old, new in zip(before, after, strict=True):
        assert STRENGTH[new["qc_row"]] >= STRENGTH[old["qc_row"]]


@given(rows=tables, wide=limits(), by=st.integers(0, 5))
@QUICK
def test_phy_6_wider_limits_never_raise_a_flag(rows: pa.RecordBatch, wide: dict[str, Any], by: int) -> None:
    def moved(pair: list[float | None]) -> list[float | None]:
        return [None if limit is None else limit + step for limit, step in zip(pair, (-by, by), strict=True)]

    wider: dict[str, Any] = {name: moved(pair) for name, pair in wide.items()}
    before = checked(PhysicsValidation(rules=[Rule("r", "range", "x", **wide)]), rows)
    after = checked(PhysicsValidation(rules=[Rule("r", "range", "x", **wider)]), rows)
    for old, new in zip(before, after, strict=True):
        assert STRENGTH[new["qc_x"]] <= STRENGTH[old["qc_x"]]


@given(rows=tables, rules=rule_sets())
@QUICK
def test_phy_9_a_row_fails_exactly_when_it_has_a_failing_reason(rows: pa.RecordBatch, rules: list[Rule]) -> None:
    for row in checked(PhysicsValidation(rules=rules), rows):
        flags = [reason["flag"] for reason in row["qc_reasons"]]
        assert (row["qc_row"] == 4) == (4 in flags)
        assert (row["qc_row"] == 3) == (3 in flags and 4 not in flags)
        assert (row["qc_row"] in (1, 9)) == (not flags)
        assert row["severity"] == {4: "fail", 3: "suspect"}.get(row["qc_row"], "none")
        assert row["validation_error"] == ("; ".join(reason["message"] for reason in row["qc_reasons"]) or None)


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
        ({"kind": "range", "fail": [0, 1], "value": 3}, "value", "takes fail and suspect"),
        ({"kind": "equals", "value": 3, "suspect": [0, 1]}, "suspect", "takes value and flag"),
        ({"kind": "equals"}, "value", "needs the value"),
        ({"kind": "equals", "value": math.nan}, "value", "needs the value"),
        ({"kind": "rate", "fail": [0, 1]}, "kind", "expected one of range, equals"),
    ],
)
def test_phy_15_a_wrong_rule_is_refused_at_its_place(rule: dict[str, Any], path: str, message: str) -> None:
    good = {"id": "good", "kind": "range", "field": "x", "fail": [0, 1]}
    found = mistakes(rules=[good, {"id": "wrong", "field": "x", **rule}])
    assert [place for place, _ in found] == [f"rules.1.{path}"]
    assert message in found[0][1]
    assert "'wrong'" in found[0][1] or path == "kind"


def test_phy_15_wrong_options_are_refused_at_their_place() -> None:
    rule = {"id": "r", "kind": "range", "field": "x", "fail": [0, 1]}
    assert mistakes()[0][0] == "profile"
    assert mistakes(profile="sed") == [("profile", "expected one of seed, none; got text ('sed'), did you mean 'seed'?")]
    assert mistakes(rules=[rule, rule]) == [("rules.1.id", "there is a rule 'r' already; give each an id of its own")]
    assert mistakes(profile="seed", fields={"temprature": "t"})[0][0] == "fields.temprature"
    assert mistakes(profile="seed", missing_sentinels={"presure": [-9999]})[0][0] == "missing_sentinels.presure"
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


# -- the profile and what rules say ------------------------------------------------------------------------------------


def test_the_seed_profile_holds_the_six_rules_of_the_environmental_pipeline() -> None:
    good = {"temperature": 20.0, "humidity": 50.0, "pressure": 1000.0, "vibration": 1.0, "voltage": 24.0, "anomaly_flag": 0}
    edges: dict[str, tuple[list[float], list[float]]] = {
        "temperature": ([-20.0, 60.0], [-20.01, 60.01]),
        "humidity": ([5.0, 95.0], [4.99, 95.01]),
        "pressure": ([950.0, 1050.0], [949.9, 1050.1]),
        "vibration": ([-3.0, 10.0], [10.01]),
        "voltage": ([20.0, 25.0], [19.9, 25.1]),
        "anomaly_flag": ([0], [1]),
    }
    for name, (inside, outside) in edges.items():
        values = inside + outside
        columns = {other: values if other == name else [value] * len(values) for other, value in good.items()}
        rows = checked(PhysicsValidation(profile="seed"), batch(**columns))
        assert [row["qc_row"] for row in rows] == [1] * len(inside) + [4] * len(outside), name


def test_reasons_say_which_limit_was_broken() -> None:
    rules = [Rule("b", "range", "x", fail=[-20, 60], suspect=[-10, 45]), Rule("a", "equals", "state", value="broken", flag="suspect")]
    rows = checked(PhysicsValidation(rules=rules), batch(x=[61.5, -12.0, 0.0, 46.0], state=["broken", "ok", None, "broken"]))
    assert [row["validation_error"] for row in rows] == [
        "state is 'broken'; x 61.5 is above 60",
        "x -12 is below -10",
        None,
        "state is 'broken'; x 46 is above 45",
    ]
    assert rows[0]["qc_reasons"] == [
        {"rule_id": "a", "field": "state", "flag": 3, "value": None, "limit": None, "message": "state is 'broken'"},
        {"rule_id": "b", "field": "x", "flag": 4, "value": 61.5, "limit": 60.0, "message": "x 61.5 is above 60"},
    ]
    assert [row["severity"] for row in rows] == ["fail", "suspect", "none", "suspect"]


def test_own_rules_replace_those_of_the_profile_by_id() -> None:
    own = Rule("voltage-range", "range", "voltage", fail=[11, 14])
    rows = batch(voltage=[12.0, 24.0], temperature=[70.0, 20.0])
    flags = [(row["qc_voltage"], row["qc_temperature"]) for row in checked(PhysicsValidation(profile="seed", rules=[own]), rows)]
    assert flags == [(1, 4), (4, 1)]


def test_fields_say_which_column_a_rule_reads() -> None:
    transform = PhysicsValidation(profile="seed", fields={"temperature": "temp_c"}, missing_sentinels={"temperature": [-99]})
    rows = checked(transform, batch(temp_c=[70.0, -99.0]))
    assert [row["qc_temp_c"] for row in rows] == [4, 9]
    assert rows[0]["validation_error"] == "temp_c 70 is above 60"


def test_rules_of_the_profile_without_column_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    transform = PhysicsValidation(profile="seed")
    with caplog.at_level(logging.WARNING, "lakeward.physics_validation"):
        for _ in range(3):
            transform.apply(batch(temperature=[1.0], humidity=[50.0], pressure=[1000.0], anomaly_flag=[0]))
    assert [record.getMessage() for record in caplog.records] == [
        "profile seed: not checked, because there is no such column: vibration, voltage; `fields` can map them"
    ]


def test_a_row_with_one_good_field_is_good_and_with_none_is_missing() -> None:
    rows = batch(temperature=[20.0, None], humidity=[None, None])
    ports = PhysicsValidation(profile="seed", route=Route(missing="anomalies")).apply(rows)
    assert ports["valid"]["qc_row"].to_pylist() == [1]
    assert ports["anomalies"]["qc_row"].to_pylist() == [9]


def test_field_flags_can_be_left_out() -> None:
    names = PhysicsValidation(profile="seed", field_flags=False).apply(batch(humidity=[1.0]))["valid"].schema.names
    assert names == ["_row", "humidity", "qc_row", "qc_reasons", "severity", "validation_error"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 7, None], pa.int8()),
        pa.array([1, 7, None], pa.uint64()),
        pa.array([1.0, 7.0, None]).cast(pa.float16()),
        pa.array([1, 7, None], pa.float32()),
        pa.array([1, 7, None]).cast(pa.decimal128(22, 2)),
        pa.array([1.0, 7.0, None]).dictionary_encode(),
    ],
)
def test_every_type_of_number_is_judged(column: Any) -> None:
    assert [row["qc_x"] for row in checked(in_range(-1e300, 5), batch(x=column))] == [1, 4, 9]
    seven = PhysicsValidation(rules=[Rule("r", "equals", "x", value=7)], missing_sentinels={"x": [1]})
    assert [row["qc_x"] for row in checked(seven, batch(x=column))] == [9, 4, 9]


@pytest.mark.parametrize("value", [True, 1])
def test_truth_values_count_as_one_and_zero(value: bool | int) -> None:
    transform = PhysicsValidation(rules=[Rule("r", "equals", "x", value=value)])
    assert [row["qc_x"] for row in checked(transform, batch(x=[True, False, None]))] == [4, 1, 9]
    assert [row["qc_x"] for row in checked(transform, batch(x=[1, 0, None]))] == [4, 1, 9]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_can_be_compared(kind: pa.DataType) -> None:
    transform = PhysicsValidation(rules=[Rule("r", "equals", "x", value="bad")], missing_sentinels={"x": ["n/a"]})
    assert [row["qc_x"] for row in checked(transform, batch(x=pa.array(["bad", "good", "n/a", None]).cast(kind)))] == [4, 1, 9, 9]


def test_a_column_of_nothing_but_null_is_missing() -> None:
    for rule in (Rule("r", "range", "x", fail=[0, 1]), Rule("r", "equals", "x", value="bad"), Rule("r", "equals", "x", value=1)):
        assert [row["qc_x"] for row in checked(PhysicsValidation(rules=[rule]), batch(x=pa.nulls(2)))] == [9, 9]


# -- real data ---------------------------------------------------------------------------------------------------------


def real(name: str, *columns: str) -> pa.RecordBatch:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in {DATA}; set LAKEWARD_TEST_DATA")
    with closing(sqlite3.connect(f"file:{DATA / name}?mode=ro", uri=True)) as connection:
        rows = connection.execute(f"SELECT id, {', '.join(columns)} FROM sensor_readings ORDER BY id").fetchall()
    return pa.RecordBatch.from_pydict(dict(zip(["_row", *columns], map(list, zip(*rows, strict=True)), strict=True)))


def test_phy_13_the_impossible_gust_of_newark_fails_and_nothing_else() -> None:
    rows = real("nyc_asos_ewr_lga_2013.db", "timestamp", "sensor_id", "wind_speed_mph")
    anomalies = PhysicsValidation(rules=[Rule("wind", "range", "wind_speed_mph", fail=[0, 168])]).apply(rows)["anomalies"].to_pylist()
    assert [(row["timestamp"], row["sensor_id"], row["severity"]) for row in anomalies] == [("2013-02-12T08:00:00Z", "EWR", "fail")]
    assert anomalies[0]["validation_error"].startswith("wind_speed_mph 1048.3")


def test_the_seed_profile_finds_every_row_of_a_wet_mast_on_a_mountain_anomalous() -> None:
    columns = {"temperature": "temperature_c", "humidity": "humidity_pct", "pressure": "pressure_hpa", "voltage": "voltage_v"}
    rows = real("brightwind_mast_2016.db", *columns.values())
    anomalies = PhysicsValidation(profile="seed", fields=columns).apply(rows)["anomalies"]
    assert anomalies.num_rows == rows.num_rows
    flags = {name: set(anomalies[f"qc_{name}"].to_pylist()) for name in columns.values()}
    assert flags == {"temperature_c": {1}, "humidity_pct": {4}, "pressure_hpa": {4}, "voltage_v": {4}}
