"""The invariants of the specification of quality flags, for rules of all kinds over rows made at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import END_OF_INPUT
from lakeward_plugins.transforms.physics_validation import PhysicsValidation, Route, Rule

QUICK = settings(max_examples=40, deadline=None)
STRENGTH = {9: 0, 2: 1, 1: 2, 3: 3, 4: 4}
MINUTE = 60_000_000


def ports_of(transform: PhysicsValidation, rows: pa.RecordBatch) -> dict[str, list[dict[str, Any]]]:
    """All rows of each port, those that waited included."""
    ports: dict[str, list[dict[str, Any]]] = {"valid": [], "anomalies": []}
    for output in (transform.apply(rows), transform.finish(END_OF_INPUT)):
        for port, part in output.items():
            ports[port] += part.to_pylist()
    return ports


def checked(rules: Sequence[Rule], rows: pa.RecordBatch, **options: Any) -> list[dict[str, Any]]:
    ports = ports_of(PhysicsValidation(rules=list(rules), **options), rows)
    return sorted(ports["valid"] + ports["anomalies"], key=lambda row: int(row["_row"]))


# -- rows and rules at random ------------------------------------------------------------------------------------------

readings = st.one_of(st.none(), st.sampled_from([math.nan, math.inf, -math.inf, -9999.0, 0.0, 1.0]), st.floats(-20, 20))


@st.composite
def tables(draw: st.DrawFn) -> pa.RecordBatch:
    """Two readings of two sensors, at times that mostly ascend; one in a while long ago, or none."""
    rows = draw(st.lists(st.tuples(readings, readings, st.sampled_from("ab"), st.integers(0, 3)), min_size=1, max_size=30))
    start = 1_600_000_000_000_000
    times: list[int | None] = [start + sum(step for *_, step in rows[:place]) * MINUTE for place in range(len(rows))]
    for place in draw(st.lists(st.integers(0, len(rows) - 1), max_size=2)):
        times[place] = draw(st.sampled_from([None, -2_000_000_000_000_000, start - MINUTE]))
    return pa.RecordBatch.from_pydict(
        {
            "_row": pa.array(range(1, len(rows) + 1), pa.int64()),
            "sensor_id": [sensor for *_, sensor, _ in rows],
            "timestamp": pa.array(times, pa.int64()).cast(pa.timestamp("us", "UTC")),
            "x": pa.array([x for x, *_ in rows], pa.float64()),
            "y": pa.array([y for _, y, *_ in rows], pa.float64()),
        }
    )


@st.composite
def spans(draw: st.DrawFn) -> dict[str, Any]:
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
def one_rule(draw: st.DrawFn, id: str = "r") -> Rule:
    kind = draw(st.sampled_from(["range", "range", "equals", "rate", "spike", "flatline", "attenuated", "relation"]))
    field, when = draw(st.sampled_from("xy")), draw(st.sampled_from([None, None, "y > 0"]))
    few, many = sorted([draw(st.integers(0, 9)), draw(st.integers(0, 9))])
    options: dict[str, Any] = {
        "range": lambda: draw(spans()),
        "equals": lambda: {"value": draw(st.sampled_from([0, 1.0])), "flag": draw(st.sampled_from([None, "suspect"]))},
        "rate": lambda: {"suspect": few / 60, "fail": many / 60, "max_gap": draw(st.sampled_from([None, timedelta(minutes=2)]))},
        "spike": lambda: {"suspect": few, "fail": many},
        "flatline": lambda: {"tolerance": few, "suspect": timedelta(minutes=1 + few), "fail": timedelta(minutes=1 + many)},
        "attenuated": lambda: {"suspect": many, "fail": few, "period": timedelta(minutes=5)},
        "relation": lambda: {
            "expr": draw(st.sampled_from(["x <= y + 3", "abs(x) < 9 or y > 0"])),
            "flag": draw(st.sampled_from([None, "fail"])),
        },
    }[kind]()
    return Rule(id, kind, "" if kind == "relation" else field, when=when, **options)  # type: ignore[arg-type]


@st.composite
def rule_sets(draw: st.DrawFn, least: int = 1) -> list[Rule]:
    return [draw(one_rule(f"r{number}")) for number in range(draw(st.integers(least, 4)))]


# -- each row once, each value as it was -------------------------------------------------------------------------------


@given(rows=tables(), rules=rule_sets(), route=st.builds(Route, *[st.sampled_from(["valid", "validated", "anomalies"])] * 3))
@QUICK
def test_phy_02_each_row_is_in_exactly_one_port(rows: pa.RecordBatch, rules: list[Rule], route: Route) -> None:
    ports = ports_of(PhysicsValidation(rules=rules, route=route), rows)
    keys = [row["_row"] for part in ports.values() for row in part]
    assert sorted(keys) == rows["_row"].to_pylist()
    wanted = {4: route.fail, 3: route.suspect, 9: route.missing}
    for port, part in ports.items():
        assert {wanted.get(row["qc_row"], "valid").replace("validated", "valid") for row in part} <= {port}


@given(rows=tables(), rules=rule_sets())
@QUICK
def test_phy_03_no_value_is_altered(rows: pa.RecordBatch, rules: list[Rule]) -> None:
    transform = PhysicsValidation(rules=rules, missing_sentinels={"x": [-9999]})
    for output in (transform.apply(rows), transform.finish(END_OF_INPUT)):
        for part in output.values():
            before = rows.take(pc.subtract(part["_row"], 1))
            for name in ("x", "y"):
                assert part[name].is_null().equals(before[name].is_null())
                assert part[name].drop_null().view(pa.int64()).equals(before[name].drop_null().view(pa.int64()))


def test_phy_03_null_nan_infinity_and_sentinels_are_missing() -> None:
    rows = pa.RecordBatch.from_pydict({"_row": range(7), "x": [None, math.nan, math.inf, -math.inf, -9999.0, -777.0, 0.5]})
    found = checked([Rule("r", "range", "x", fail=[0, 1])], rows, missing_sentinels={"x": [-9999, -777]})
    assert [row["qc_x"] for row in found] == [9, 9, 9, 9, 9, 9, 1]
    assert all(row["qc_reasons"] == [] and row["validation_error"] is None and row["severity"] == "none" for row in found)


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-20.0, 60.0), (5, 95), (950, 1050), (20, 25), (0.1, 0.3), (-0.0, 0.0)])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_phy_04_bounds_are_inclusive_and_the_next_number_fails(low: float, high: float, kind: type[Any]) -> None:
    bottom, top = kind(low), kind(high)
    values = np.array([bottom, top, np.nextafter(bottom, kind(-math.inf)), np.nextafter(top, kind(math.inf))], kind)
    rows = pa.RecordBatch.from_pydict({"_row": range(4), "x": values})
    assert [row["qc_x"] for row in checked([Rule("r", "range", "x", fail=[low, high])], rows)] == [1, 1, 4, 4]


def test_phy_04_large_whole_numbers_are_not_rounded() -> None:
    rows = pa.RecordBatch.from_pydict({"_row": range(5), "x": pa.array([2**53, 2**53 + 1, -(2**63), 2**63 - 1, 0], pa.int64())})
    assert [row["qc_x"] for row in checked([Rule("r", "range", "x", fail=[0, 2.0**53])], rows)] == [1, 4, 4, 4, 1]


@given(rows=tables(), rules=rule_sets(least=2), data=st.data())
@QUICK
def test_phy_05_the_order_of_rules_changes_nothing(rows: pa.RecordBatch, rules: list[Rule], data: st.DataObject) -> None:
    one, other = checked(rules, rows), checked(data.draw(st.permutations(rules)), rows)
    assert [repr(sorted(row.items())) for row in one] == [repr(sorted(row.items())) for row in other]


def not_lower(new: int, old: int) -> bool:
    """On the order 1 < 3 < 4: what was not evaluated may become anything."""
    return old in (2, 9) or STRENGTH[new] >= STRENGTH[old]


@given(rows=tables(), rules=rule_sets(), more=one_rule("more"))
@QUICK
def test_phy_06_one_more_rule_never_lowers_a_flag(rows: pa.RecordBatch, rules: list[Rule], more: Rule) -> None:
    for old, new in zip(checked(rules, rows), checked([*rules, more], rows), strict=True):
        assert not_lower(new["qc_row"], old["qc_row"])
        for name in ("qc_x", "qc_y"):
            assert name not in old or not_lower(new[name], old[name])


def relaxed(rule: Rule, by: int) -> Rule:
    """The same rule with limits that fewer readings exceed."""

    def moved(limit: Any, sign: int = 1) -> Any:
        if isinstance(limit, list):
            return [None if end is None else end + step for end, step in zip(limit, (-by, by), strict=True)]
        if isinstance(limit, timedelta):
            return limit + timedelta(minutes=by)
        return None if limit is None else max(0, limit + sign * by)

    sign = -1 if rule.kind == "attenuated" else 1
    return attrs.evolve(rule, fail=moved(rule.fail, sign), suspect=moved(rule.suspect, sign))


@given(rows=tables(), rule=one_rule(), by=st.integers(0, 5))
@QUICK
def test_phy_06_wider_limits_never_raise_a_flag(rows: pa.RecordBatch, rule: Rule, by: int) -> None:
    for old, new in zip(checked([rule], rows), checked([relaxed(rule, by)], rows), strict=True):
        assert STRENGTH[new["qc_row"]] <= STRENGTH[old["qc_row"]]


@given(rows=tables(), rules=rule_sets())
@QUICK
def test_phy_09_a_row_fails_exactly_when_it_has_a_failing_reason(rows: pa.RecordBatch, rules: list[Rule]) -> None:
    for row in checked(rules, rows):
        flags = [reason["flag"] for reason in row["qc_reasons"]]
        assert (row["qc_row"] == 4) == (4 in flags)
        assert (row["qc_row"] == 3) == (3 in flags and 4 not in flags)
        assert (row["qc_row"] in (1, 2, 9)) == (not flags)
        assert row["severity"] == {4: "fail", 3: "suspect"}.get(row["qc_row"], "none")
        assert row["validation_error"] == ("; ".join(reason["message"] for reason in row["qc_reasons"]) or None)
        assert [reason["rule_id"] for reason in row["qc_reasons"]] == sorted(reason["rule_id"] for reason in row["qc_reasons"])
        fields = {name: row[f"qc_{name}"] for name in "xy" if f"qc_{name}" in row}
        timely = [reason for reason in row["qc_reasons"] if reason["rule_id"] != "time"]
        for name, flag in fields.items():
            own = [reason["flag"] for reason in timely if name in reason["fields"]]
            assert (flag in (3, 4)) == bool(own)
            assert not own or flag == max(own)
        if len(timely) == len(flags):  # a time that cannot be is no field's fault
            assert row["qc_row"] == max(fields.values(), key=STRENGTH.__getitem__)


def test_phy_09_good_means_that_at_least_one_test_was_evaluated() -> None:
    rules = [Rule("a", "relation", expr="x <= y"), Rule("b", "range", "x", fail=[0, 9], when="y > 0")]
    rows = pa.RecordBatch.from_pydict({"_row": range(4), "x": [1.0, 1.0, None, 1.0], "y": pa.array([2.0, None, 2.0, -1.0])})
    found = [(row["qc_x"], row["qc_y"], row["qc_row"]) for row in checked(rules, rows)]
    assert found == [(1, 1, 1), (2, 9, 2), (9, 2, 2), (3, 3, 3)]
