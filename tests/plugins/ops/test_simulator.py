import math
from collections import Counter
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward_plugins.ops.sensor_tables import COLUMNS
from lakeward_plugins.ops.simulator import LENGTHS, Fleet, Identity, sensor_in_city, sensor_in_plant

LIMITS = {"temperature": (-20, 60), "humidity": (5, 95), "pressure": (950, 1050), "vibration": (0, 10), "voltage": (20, 25)}
KINDS = tuple(LENGTHS)
Record = dict[str, Any]


def plant(sensors: int) -> list[Identity]:
    return [sensor_in_plant(number, Path("x.db")) for number in range(1, sensors + 1)]


def records(
    count: int, seed: int = 1, *, sensors: int = 1, kinds: tuple[str, ...] = KINDS, share: float = 0.0, moves_every: float | None = None,
    cuts: int = 10**9,
) -> list[Record]:  # fmt: skip
    fleet = Fleet(plant(sensors), seed, kinds, share, moves_every)
    rows: list[Record] = []
    while len(rows) < count:
        rows += [dict(zip(COLUMNS, row, strict=True)) for _, row in fleet.readings(min(cuts, count - len(rows)), str)]
    return rows


def outside(row: Record) -> list[str]:
    return [name for name, (low, high) in LIMITS.items() if row[name] is not None and not low <= row[name] <= high]


def episodes(rows: list[Record]) -> list[list[Record]]:
    """Runs of rows of one sensor with one anomaly type; two of a kind that touch are cut by their length."""
    runs = [(kind, list(some)) for kind, some in groupby(rows, lambda row: row["anomaly_type"]) if kind]
    return [some[at : at + LENGTHS[kind]] for kind, some in runs for at in range(0, len(some), LENGTHS[kind])]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), sensors=st.integers(1, 20), share=st.sampled_from([0.0, 0.05, 0.5]))
def test_only_anomalies_leave_the_limits(seed: int, sensors: int, share: float) -> None:
    for row in records(400, seed, sensors=sensors, share=share):
        if not row["anomaly_flag"]:
            assert not outside(row), row
            assert row["anomaly_type"] is None
            assert None not in (row[name] for name in LIMITS)
            assert row["status_code"] == 200
        else:
            assert row["anomaly_type"] in KINDS


def test_values_wander_and_are_not_the_same_for_all_sensors() -> None:
    rows = records(2000, sensors=2)
    for name in LIMITS:
        for sensor in ("SENSOR_00001", "SENSOR_00002"):
            values = [row[name] for row in rows if row["sensor_id"] == sensor]
            assert len(set(values)) > 20
            assert max(abs(after - before) for before, after in pairwise(values)) < 1.0
        assert rows[0][name] != rows[1][name]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**40), cuts=st.integers(1, 300))
def test_rows_do_not_depend_on_how_they_are_cut(seed: int, cuts: int) -> None:
    arguments: dict[str, Any] = {"seed": seed, "sensors": 3, "share": 0.3, "moves_every": 1.0}
    assert records(300, **arguments, cuts=cuts) == records(300, **arguments)


def test_another_seed_gives_other_values_of_the_same_sensors() -> None:
    one, other = records(1, 1)[0], records(1, 2)[0]
    same = {"timestamp", "sensor_id", "firmware_version", "model", "manufacturer", "location", "latitude", "longitude"}
    assert all(one[name] == other[name] for name in same)
    assert one["temperature"] != other["temperature"]


@pytest.mark.parametrize("share", [0.02, 0.25, 0.8])
@pytest.mark.parametrize("sensors", [1, 10])
def test_the_share_of_anomalies_is_within_three_sigma(share: float, sensors: int) -> None:
    count = 10_000
    rows = records(count, sensors=sensors, share=share)
    flagged = sum(row["anomaly_flag"] for row in rows)
    assert abs(flagged - count * share) <= 3 * math.sqrt(count * share * (1 - share))
    kinds = Counter(row["anomaly_type"] for row in rows if row["anomaly_flag"])
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) > flagged / len(KINDS) / 3


def test_every_row_or_none_can_be_an_anomaly() -> None:
    assert all(row["anomaly_flag"] == 1 for row in records(500, sensors=3, share=1.0))
    assert not any(row["anomaly_flag"] for row in records(500, sensors=3))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_wanted_kinds_occur(kind: str) -> None:
    assert {row["anomaly_type"] for row in records(2000, kinds=(kind,), share=0.2)} == {None, kind}


def test_a_spike_is_one_value_out_of_its_limits() -> None:
    spikes = episodes(records(3000, kinds=("spike",), share=0.05))
    assert len(spikes) > 100
    assert all(len(outside(row)) == 1 for (row,) in spikes)
    assert {outside(row)[0] for (row,) in spikes} == set(LIMITS)


def test_missing_values_are_null_and_nothing_is_out_of_range() -> None:
    for episode in episodes(records(3000, kinds=("missing",), share=0.05)):
        for row in episode:
            assert None in (row[name] for name in LIMITS)
            assert not outside(row)
            assert row["status_code"] == 500


def test_a_stuck_sensor_repeats_its_last_reading() -> None:
    rows = records(3000, kinds=("stuck",), share=0.05)
    stuck = 0
    for before, row in pairwise(rows):
        if row["anomaly_type"] == "stuck":
            assert [row[name] for name in LIMITS] == [before[name] for name in LIMITS]
            stuck += 1
    assert stuck > 100


@pytest.mark.parametrize("kind", ["trend", "drift"])
def test_trend_and_drift_go_slowly_until_they_are_out_of_their_limits(kind: str) -> None:
    whole = [episode for episode in episodes(records(9000, kinds=(kind,), share=0.1)) if len(episode) == LENGTHS[kind]]
    assert len(whole) > 20
    for episode in whole:
        (name,) = outside(episode[-1])
        assert not outside(episode[0])
        values = [row[name] for row in episode]
        steps = [after - before for before, after in pairwise(values)]
        assert max(map(abs, steps)) < abs(values[-1] - values[0]) / 4 + 1
        if kind == "trend":
            assert max(steps) - min(steps) < 0.03  # a line, but for the rounding


def meters(one: Record, other: Record) -> float:
    east = (one["longitude"] - other["longitude"]) * 111_195 * math.cos(math.radians(one["latitude"]))
    return math.hypot(east, (one["latitude"] - other["latitude"]) * 111_195)


def test_a_sensor_on_a_track_walks_smoothly_around_its_base() -> None:
    base, *track = records(1)[0], *records(6000, moves_every=2.0)
    strides = [meters(before, after) for before, after in pairwise(track)]
    assert max(strides) < 2.0 * 1.4 + 0.3  # rounding to a millionth of a degree
    assert min(strides) > 2.0 * 1.4 - 0.3
    assert max(meters(base, row) for row in track) < 1200
    assert max(meters(base, row) for row in track) > 200


def test_a_sensor_that_stands_still_has_one_position() -> None:
    assert len({(row["latitude"], row["longitude"]) for row in records(500, share=0.5)}) == 1


def test_sensors_of_a_city_are_near_it_with_names_and_files_of_their_own() -> None:
    sensors = [sensor_in_city("Paris", number, Path("data")) for number in range(1, 251)]
    assert len({one.name for one in sensors}) == len({one.database for one in sensors}) == 250
    for one in sensors:
        city, code = one.name.split("_")
        assert one.database == Path("data/Paris") / code / "sensor_data.db"
        assert (city, one.location, one.timezone) == ("Paris", "Paris", "+01:00")
        assert abs(one.latitude - 48.8566) < 0.05
        assert abs(one.longitude - 2.3522) < 0.07


def test_a_city_that_is_not_known_has_a_place_too() -> None:
    one, again = sensor_in_city("Atlantis", 1, Path("data")), sensor_in_city("Atlantis", 1, Path("data"))
    assert one == again
    assert -60 < one.latitude < 65
