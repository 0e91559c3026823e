"""The component `physics_validation`: the contract, its profiles, columns of every type, and what reasons say."""

from __future__ import annotations

import logging
import math
from typing import Any

import pyarrow as pa
import pytest

from lakeward.testing import TransformContract
from lakeward_plugins.transforms.physics_validation import PhysicsValidation, Route, Rule


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
        {"rule_id": "a", "fields": ["state"], "flag": 3, "value": None, "limit": None, "unit": None, "message": "state is 'broken'"},
        {"rule_id": "b", "fields": ["x"], "flag": 4, "value": 61.5, "limit": 60.0, "unit": None, "message": "x 61.5 is above 60"},
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
    assert rows[0]["validation_error"] == "temp_c 70 is above 60 degC"


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
