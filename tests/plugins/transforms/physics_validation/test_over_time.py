"""Rules over time against a plain Python reading of them, row by row; rows cut anywhere, saved and restored in between."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import END_OF_INPUT
from lakeward_plugins.transforms.physics_validation import PhysicsValidation, Rule

QUICK = settings(max_examples=50, deadline=None)
START = 1_600_000_000  # seconds
Row = dict[str, Any]


# -- the same rules, one row after another -----------------------------------------------------------------------------


def on_time(rows: list[Row]) -> dict[str, list[int]]:
    """For each sensor the places of its rows that are not late."""
    places: dict[str, list[int]] = {}
    newest: dict[str, float] = {}
    for place, row in enumerate(rows):
        if row["t"] is not None and row["t"] >= newest.get(row["sensor"], -math.inf):
            newest[row["sensor"]] = row["t"]
            places.setdefault(row["sensor"], []).append(place)
    return places


def seconds(limit: Any) -> Any:
    return limit.total_seconds() if isinstance(limit, timedelta) else limit


def worst(rule: Rule, value: float, beyond: Any) -> int:
    for flag, limit in ((4, rule.fail), (3, rule.suspect)):
        if limit is not None and beyond(value, seconds(limit)):
            return flag
    return 1


def above(value: float, limit: float) -> bool:
    return value > limit


def below(value: float, limit: float) -> bool:
    return value < limit


def rate(rule: Rule, past: list[Row], row: Row, follows: Row | None) -> int:
    if rule.max_gap is not None:
        past = [each for each in past if each["x"] is not None]
    if not past or past[-1]["x"] is None:
        return 2
    gap = row["t"] - past[-1]["t"]
    if gap <= 0 or (rule.max_gap is not None and gap > seconds(rule.max_gap)):
        return 2
    return worst(rule, abs(row["x"] - past[-1]["x"]) / gap, above)


def spike(rule: Rule, past: list[Row], row: Row, follows: Row | None) -> int:
    if not past or follows is None or past[-1]["x"] is None or follows["x"] is None:
        return 2
    before, after, gap = past[-1]["x"], follows["x"], seconds(rule.max_gap)
    if gap is not None and (row["t"] - past[-1]["t"] > gap or follows["t"] - row["t"] > gap):
        return 2
    up, down = row["x"] - before, after - row["x"]
    if rule.method == "average":
        return worst(rule, abs(row["x"] - (before + after) / 2), above)
    return worst(rule, min(abs(up), abs(down)) if up * down < 0 else 0.0, above)


def flatline(rule: Rule, past: list[Row], row: Row, follows: Row | None) -> int:
    same, since = [row["x"]], row["t"]
    for each in reversed(past):
        if rule.when and not barred_no_more(each):
            break
        if each["x"] is None:
            continue
        same.append(each["x"])
        if max(same) - min(same) > (rule.tolerance or 0) or (rule.max_gap is not None and since - each["t"] > seconds(rule.max_gap)):
            break
        since = each["t"]
    return worst(rule, row["t"] - since, lambda value, limit: value >= limit)


def barred_no_more(row: Row) -> bool:
    return row["h"] is not None and row["h"] < 95


def attenuated(rule: Rule, past: list[Row], row: Row, follows: Row | None) -> int:
    window = [each for each in [*past, row] if each["t"] > row["t"] - seconds(rule.period)]
    values = [each["x"] for each in window if each["x"] is not None]
    if rule.measure != "std" and len(values) < len(window):
        return 2
    if rule.min_period is not None:
        span, steps = window[-1]["t"] - window[0]["t"], len(window) - 1
        if span == 0 or len(values) < seconds(rule.min_period) * steps // span:
            return 2
    spread = float(np.std(values)) if rule.measure == "std" else max(values) - min(values)
    return worst(rule, spread, below)


ORACLES = {"rate": rate, "spike": spike, "flatline": flatline, "attenuated": attenuated}


def flags_by_hand(rule: Rule, rows: list[Row]) -> list[int]:
    flags = [9 if row["x"] is None else 2 for row in rows]
    for places in on_time(rows).values():
        own = [rows[place] for place in places]
        for number, place in enumerate(places):
            if rows[place]["x"] is not None and (rule.when is None or barred_no_more(rows[place])):
                follows = own[number + 1] if number + 1 < len(own) else None
                flags[place] = ORACLES[rule.kind](rule, own[:number], own[number], follows)
    return flags


# -- what the transform says -------------------------------------------------------------------------------------------


def to_batch(rows: list[Row]) -> pa.RecordBatch:
    micros = pa.array([None if row["t"] is None else int((START + row["t"]) * 1_000_000) for row in rows], pa.int64())
    return pa.RecordBatch.from_pydict(
        {
            "_row": pa.array(range(len(rows)), pa.int64()),
            "sensor_id": pa.array([row["sensor"] for row in rows], pa.string()),
            "timestamp": micros.cast(pa.timestamp("us", "UTC")),
            "x": pa.array([row["x"] for row in rows], pa.float64()),
            "humidity": pa.array([row["h"] for row in rows], pa.float64()),
        }
    )


def flags_of(rules: list[Rule], batches: list[pa.RecordBatch], restart: bool = False) -> tuple[list[int], list[Any]]:
    """Flag and reasons of each row; with `restart`, of a transform that is made anew from its state after each batch."""
    transform, found = PhysicsValidation(rules=rules), []
    for batch in batches:
        found += [row for part in transform.apply(batch).values() for row in part.to_pylist()]
        if restart:
            state, transform = transform.state(), PhysicsValidation(rules=rules)
            transform.restore(state)
            assert transform.state() == state
    found += [row for part in transform.finish(END_OF_INPUT).values() for row in part.to_pylist()]
    found.sort(key=lambda row: int(row["_row"]))
    assert [row["_row"] for row in found] == list(range(sum(batch.num_rows for batch in batches)))
    return [row["qc_x"] for row in found], [row["qc_reasons"] for row in found]


steps = st.sampled_from([0, 0.25, 1, 1, 1, 2, 5, 30, -3])
values = st.one_of(st.none(), st.sampled_from([0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 7.0]), st.integers(-30, 30).map(lambda tenth: tenth / 10))


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    rows, clock = [], 0.0
    for step, sensor, x, h in draw(
        st.lists(st.tuples(steps, st.sampled_from("ab"), values, st.sampled_from([50, 50, 97, None])), max_size=40)
    ):
        clock += step
        lost = draw(st.integers(0, 30)) == 0
        rows.append({"t": None if lost else clock, "sensor": sensor, "x": x, "h": h})
    return rows


def limits(*numbers: Any) -> st.SearchStrategy[dict[str, Any]]:
    """`suspect`, `fail` or both, of ascending numbers."""
    pairs = st.sampled_from([(one, other) for one in numbers for other in numbers if one <= other])
    return pairs.flatmap(lambda pair: st.sampled_from([{"suspect": pair[0], "fail": pair[1]}, {"suspect": pair[0]}, {"fail": pair[1]}]))


def lengths(*numbers: float) -> st.SearchStrategy[timedelta]:
    return st.sampled_from([timedelta(seconds=number) for number in numbers])


gaps = st.none() | lengths(1, 2, 6)
guards = st.sampled_from([None, None, "humidity < 95"])
durations = [timedelta(seconds=number) for number in (0.25, 1, 2, 3, 8)]
rates = st.builds(Rule, st.just("r"), st.just("rate"), st.just("x"), max_gap=gaps, when=guards)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    kind = draw(st.sampled_from(["rate", "spike", "flatline", "attenuated"]))
    options: dict[str, Any] = {"when": draw(guards)}
    if kind == "flatline":
        options |= draw(limits(*durations)) | {"tolerance": draw(st.sampled_from([None, 0.0, 0.1, 1.0, 3.0])), "max_gap": draw(gaps)}
    elif kind == "attenuated":
        pair = draw(st.sampled_from([(0.0, 0.5), (0.3, 0.3), (0.1, 2.0)]))
        options |= draw(st.sampled_from([{"fail": pair[0], "suspect": pair[1]}, {"fail": pair[0]}, {"suspect": pair[1]}]))
        options |= {"measure": draw(st.sampled_from(["range", "std"])), "period": draw(lengths(1, 3, 7, 40))}
        options["min_period"] = draw(st.sampled_from([None, timedelta(seconds=1), options["period"]]))
    else:
        options |= draw(limits(0, 0.5, 1, 3)) | {"max_gap": draw(gaps)}
        options |= {"method": draw(st.sampled_from([None, "average"]))} if kind == "spike" else {}
    return Rule("r", kind, "x", **options)  # type: ignore[arg-type]


@given(rows=tables(), rule=rules())
@settings(QUICK, max_examples=150)
def test_flags_are_those_of_a_reading_row_by_row(rows: list[Row], rule: Rule) -> None:
    assert flags_of([rule], [to_batch(rows)])[0] == flags_by_hand(rule, rows)


@given(rows=tables(), some=st.lists(rules(), min_size=1, max_size=3), cuts=st.lists(st.integers(0, 40), max_size=6), restart=st.booleans())
@settings(QUICK, max_examples=150)
def test_phy_08_any_cut_gives_the_same_flags_and_reasons(rows: list[Row], some: list[Rule], cuts: list[int], restart: bool) -> None:
    named = [Rule(**{name: getattr(rule, name) for name in OPTIONS} | {"id": f"r{number}"}) for number, rule in enumerate(some)]
    whole, places = to_batch(rows), sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    parts = [whole.slice(start, end - start) for start, end in pairwise(places)]
    assert flags_of(named, parts, restart) == flags_of(named, [whole])


@given(rows=tables(), rule=rules())
@QUICK
def test_phy_08_keys_are_independent(rows: list[Row], rule: Rule) -> None:
    together = flags_of([rule], [to_batch(rows)])[0]
    for sensor in "ab":
        alone = [row for row in rows if row["sensor"] == sensor]
        assert flags_of([rule], [to_batch(alone)])[0] == [flag for flag, row in zip(together, rows, strict=True) if row["sensor"] == sensor]


OPTIONS = [name for name in Rule.__init__.__annotations__ if name != "return"]


# -- long runs, which hypothesis seldom makes --------------------------------------------------------------------------

FLAT: list[dict[str, Any]] = [
    {"kind": "flatline", "tolerance": tolerance, "suspect": short, "fail": long, "max_gap": gap, "when": when}
    for tolerance in (0.5, 1.0)
    for short, long in ((timedelta(seconds=3), timedelta(seconds=9)), (timedelta(seconds=5), timedelta(seconds=20)))
    for gap in (None, timedelta(seconds=3))
    for when in (None, "humidity < 95")
]
SMALL: list[dict[str, Any]] = [
    {"kind": "attenuated", "measure": measure, "period": timedelta(seconds=period), "suspect": 1.03, "fail": 0.21, "min_period": least}
    for measure in ("range", "std")
    for period in (4, 15)
    for least in (None, timedelta(seconds=4))
]
CHANGES: list[dict[str, Any]] = [
    {"kind": kind, "suspect": 0.2, "fail": 1.0, "max_gap": gap, **more}
    for kind, more in (("rate", {}), ("spike", {"method": "differential"}), ("spike", {"method": "average"}))
    for gap in (None, timedelta(seconds=2))
]


def series(random: np.random.Generator, count: int = 80) -> list[Row]:
    """Three sensors that mostly drift slowly, in steps of a quarter, with leaps, gaps and missing values now and then."""
    rows: list[Row] = []
    clock, level = 0, dict.fromkeys("abc", 0.0)
    for _ in range(count):
        sensor = str(random.choice(list("aaabbc")))
        clock += int(random.choice([0, 1, 1, 1, 1, 4], p=[0.1, 0.2, 0.2, 0.2, 0.2, 0.1]))
        level[sensor] += float(random.choice([-0.25, 0, 0.25, 2.0], p=[0.2, 0.6, 0.17, 0.03]))
        missing, damp = random.random() < 0.05, random.random() < 0.05
        late = random.random() < 0.03
        rows.append({"t": clock - 7 if late else clock, "sensor": sensor, "x": None if missing else level[sensor], "h": 97 if damp else 50})
    return rows


@pytest.mark.one_python
@pytest.mark.parametrize("options", [*FLAT, *SMALL, *CHANGES], ids=lambda options: "-".join(map(str, options.values())))
def test_phy_08_long_runs_in_small_batches(options: dict[str, Any]) -> None:
    rule, random = Rule(id="r", field="x", **options), np.random.default_rng(7)
    seen: set[int] = set()
    for _ in range(3):
        rows = series(random)
        wanted, whole = flags_by_hand(rule, rows), to_batch(rows)
        size = int(random.integers(1, 8))
        parts = [whole.slice(start, size) for start in range(0, len(rows), size)]
        found = flags_of([rule], parts, restart=True)
        assert found[0] == wanted
        assert found == flags_of([rule], [whole])
        seen |= set(wanted)
    assert seen >= {1, 9}  # or it would not have been tried
    assert seen & {3, 4}


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "rate", "suspect": 1}, {"kind": "spike", "suspect": 1}, {"kind": "spike", "method": "average", "suspect": 1},
        {"kind": "flatline", "tolerance": 1e308, "suspect": timedelta(seconds=2)},
        {"kind": "attenuated", "period": timedelta(seconds=5), "suspect": 1},
        {"kind": "attenuated", "period": timedelta(seconds=5), "suspect": 1, "measure": "std"},
    ],
)  # fmt: skip
def test_absurd_values_are_judged_in_silence(options: dict[str, Any]) -> None:
    values = [1e308, -1e308, 1.7e308, -1.7e308, 0.0, 5e-324, 1e308, 1e308, -1e308, 0.0]
    rows: list[Row] = [{"t": second, "sensor": "a", "x": value, "h": None} for second, value in enumerate(values)]
    rule = Rule(id="r", field="x", **options)
    with np.errstate(all="ignore"):
        wanted = flags_by_hand(rule, rows)
    assert flags_of([rule], [to_batch(rows)])[0] == wanted
