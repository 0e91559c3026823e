"""Rules about readings that vary too little: flatline and attenuated. Both look at windows of real elapsed time."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from lakeward.grouping import NEVER, Array, starts
from lakeward_plugins.transforms.physics_validation.flags import FAIL, SUSPECT, Phrase, Verdict, in_unit, number
from lakeward_plugins.transforms.physics_validation.rule import US, Rule
from lakeward_plugins.transforms.physics_validation.sample import Memory, Sample, Series, series_of
from lakeward_plugins.transforms.physics_validation.windows import Deviations, Extremes, first_later, spread


@frozen(eq=False)
class Line:
    """Readings key by key: those that are remembered of the keys of this batch, and those of the batch behind them."""

    keys: Array
    times: Array
    """For a remembered reading of a flatline, from when on a window is as flat as one that begins here."""
    seen: Array
    """When it was read."""
    values: Array
    places: Array
    """In the series; -1 for what is remembered."""

    @classmethod
    def of(cls, memory: Memory, series: Series, wanted: Array, values: Array) -> Line:
        """With the wanted rows of the series."""
        places = np.flatnonzero(wanted)
        old = {name: array[_present(memory, series)] for name, array in memory.items()}
        if not old or not len(old["key"]):
            return cls(series.keys[places], series.times[places], series.times[places], values[places], places)
        keys = np.concatenate([old["key"], series.keys[places]])
        order = np.argsort(keys.astype(np.uint16) if series.count < 2**16 else keys, kind="stable")
        new = {"time": series.times[places], "seen": series.times[places], "value": values[places]}
        times, seen, together = (np.concatenate([old[name], new[name]])[order] for name in ("time", "seen", "value"))
        return cls(keys[order], times, seen, together, np.concatenate([np.full(len(old["key"]), -1), places])[order])

    def leaving(self, series: Series) -> Array:
        """Places of what is to be remembered: not the rows that wait."""
        return np.flatnonzero((self.places < 0) | series.leaving[self.places])


def judge_flatline(rule: Rule, sample: Sample, memory: Memory) -> tuple[Verdict, Memory]:
    """Readings that have kept within `tolerance` of each other for a duration.

    A missing value is passed over; a gap longer than `max_gap`, or a row for which `when` is not true, starts anew.
    """
    series = series_of(sample)
    values, asked = sample.numbers(rule.field, rule)[series.rows], sample.asked(rule)
    good = ~np.isnan(values)
    wanted = good
    if asked is not None:  # a row that is barred stands in the line as NaN, which is flat with nothing
        barred = ~asked[series.rows]
        values, good, wanted = np.where(barred, np.nan, values), good & ~barred, good | barred
    line = Line.of(memory, series, wanted, values)
    begins, extremes = _runs(rule, line), Extremes(line.values)
    column, unit, tolerance = sample.column(rule.field), sample.fields.unit(rule.field, rule), rule.tolerance or 0.0
    which, found = np.full(sample.count, -1), np.full(sample.count, np.nan)
    phrases: list[Phrase] = []
    for name, rank in (("fail", FAIL), ("suspect", SUSPECT)):
        if (limit := rule.threshold(name)) is None:
            continue
        length = int(limit)
        long = np.flatnonzero((line.places >= 0) & (line.times - line.times[begins] >= length))
        first = first_later(line.times, begins[long], long, line.times[long] - length) - 1
        low, high = extremes.over(first, long)
        varies = spread(low, high)
        flat = varies <= tolerance
        rows, varies = series.rows[line.places[long[flat]]], varies[flat]
        fresh = which[rows] < 0
        which[rows[fresh]], found[rows[fresh]] = len(phrases), varies[fresh]
        words = f" in {_duration(length)}, no more than {number(tolerance)}{in_unit(unit)}"
        phrases.append(Phrase(rank, f"{column} varies by ", words, tolerance))
    evaluated = np.zeros(sample.count, np.bool_)
    evaluated[series.rows[good]] = True
    rows = np.flatnonzero(which >= 0)
    verdict = Verdict(rule.id, (column,), unit, tuple(phrases), rows, which[rows], found[rows], evaluated=evaluated)
    return verdict, _remembered_run(rule, memory, series, line, begins, extremes)


def judge_attenuated(rule: Rule, sample: Sample, memory: Memory) -> tuple[Verdict, Memory]:
    """Readings whose range or standard deviation over the last `period` is too small: those later than the period before the row.

    With `min_period` there must be as many of them as a sensor gives in that time, at the pace of the rows in the window. A range that
    lacks a reading is not evaluated.
    """
    assert rule.period is not None  # noqa: S101  # for mypy; the rule saw to it
    series, period = series_of(sample), rule.period // US
    values = sample.numbers(rule.field, rule)[series.rows]
    line = Line.of(memory, series, np.ones(len(values), np.bool_), values)
    begins = np.maximum.accumulate(np.where(starts(line.keys), np.arange(len(line.keys)), 0))
    here = np.flatnonzero((line.places >= 0) & ~np.isnan(line.values))
    first = first_later(line.times, begins[here], here, line.times[here] - period)
    if rule.measure == "std":
        varies = Deviations(line.values).over(first, here)
    else:
        varies = spread(*Extremes(line.values).over(first, here))
    rows = series.rows[line.places[here]]
    found, evaluated, asked = np.full(sample.count, np.nan), np.zeros(sample.count, np.bool_), sample.asked(rule)
    found[rows], evaluated[rows] = varies, _enough(rule, line, first, here)
    if asked is not None:
        evaluated &= asked
    kept, newest = line.leaving(series), np.full(series.count, NEVER)
    newest[series.keys[series.ends]] = series.times[series.ends]
    return _too_small(rule, sample, found, evaluated), _kept(
        memory, series, line, kept[line.times[kept] > newest[line.keys[kept]] - period]
    )


def _enough(rule: Rule, line: Line, first: Array, here: Array) -> Array:
    """Whether the windows have readings for `min_period`; for a range none may be missing, as in ioos_qc."""
    good = np.concatenate([[0], np.cumsum(~np.isnan(line.values))])
    count, steps = good[here + 1] - good[first], here - first
    enough = np.full(len(here), True) if rule.measure == "std" else count == steps + 1
    if rule.min_period is not None:
        span = line.times[here] - line.times[first]
        enough &= (span > 0) & (count >= (rule.min_period // US) * steps // np.maximum(span, 1))
    return enough


def _too_small(rule: Rule, sample: Sample, found: Array, evaluated: Array) -> Verdict:
    assert rule.period is not None  # noqa: S101  # for mypy; the rule saw to it
    column, unit = sample.column(rule.field), sample.fields.unit(rule.field, rule)
    name = "standard deviation" if rule.measure == "std" else "range"
    which = np.full(sample.count, -1)
    phrases: list[Phrase] = []
    for limit, rank in ((rule.threshold("fail"), FAIL), (rule.threshold("suspect"), SUSPECT)):
        if limit is not None:
            which[(which < 0) & (found < limit) & evaluated] = len(phrases)
            words = f" in {_duration(rule.period // US)}, less than {number(limit)}{in_unit(unit)}"
            phrases.append(Phrase(rank, f"{column} has a {name} of ", words, limit))
    rows = np.flatnonzero(which >= 0)
    return Verdict(rule.id, (column,), unit, tuple(phrases), rows, which[rows], found[rows], evaluated=evaluated)


def _runs(rule: Rule, line: Line) -> Array:
    """For each reading the place of the first one that may be as flat: no step in between is larger than the tolerance."""
    anew = starts(line.keys)
    with np.errstate(over="ignore"):  # of absurd values
        anew[1:] |= ~(np.abs(np.diff(line.values)) <= (rule.tolerance or 0.0))
    if rule.max_gap is not None:
        anew[1:] |= (line.places[1:] >= 0) & (line.times[1:] - line.seen[:-1] > rule.max_gap // US)
    return np.asarray(np.maximum.accumulate(np.where(anew, np.arange(len(anew)), 0)))


def _remembered_run(rule: Rule, memory: Memory, series: Series, line: Line, begins: Array, extremes: Extremes) -> Memory:
    """Of each key the readings that are flat with the newest one, as few as tell the same.

    A window that begins between two extremes of what follows is as flat as one that begins at the second of them. So those extremes
    are enough, each with the time from which on it is one; and of those older than the longest duration the last.
    """
    kept = line.leaving(series)
    ends = kept[_last(line.keys[kept])][np.cumsum(starts(line.keys[kept])) - 1]  # for each the newest of its key
    run = kept >= begins[ends]
    kept, ends = kept[run], ends[run]
    low, high = extremes.over(kept, ends)
    flat = ~(spread(low, high) > (rule.tolerance or 0.0))
    kept, ends, low, high = kept[flat], ends[flat], low[flat], high[flat]
    last = _last(line.keys[kept])
    tells = last.copy()
    tells[:-1] |= (low[:-1] < low[1:]) | (high[:-1] > high[1:])
    places = np.flatnonzero(tells)
    since = line.times[kept[np.concatenate([[0], places + 1])[: len(places)]]]
    longest = max(int(limit) for limit in (rule.threshold("fail"), rule.threshold("suspect")) if limit is not None)
    old = np.append(since[1:], NEVER)[: len(places)] <= line.seen[ends[places]] - longest
    needed = last[places] | ~old
    return _kept(memory, series, line, kept[places[needed]], since[needed])


def _kept(memory: Memory, series: Series, line: Line, places: Array, times: Array | None = None) -> Memory:
    """These places of the line, beside what is remembered of other keys."""
    new = {"key": line.keys[places], "time": line.times[places] if times is None else times}
    new |= {"seen": line.seen[places], "value": line.values[places]}
    others = ~_present(memory, series)
    return {name: np.concatenate([memory[name][others], array]) if memory else array for name, array in new.items()}


def _present(memory: Memory, series: Series) -> Array:
    """Which remembered readings are of keys in this batch."""
    there = np.zeros(series.count, np.bool_)
    there[series.keys] = True
    return there[memory.get("key", np.zeros(0, np.int64))]


def _last(keys: Array) -> Array:
    return np.append(keys[1:] != keys[:-1], True)[: len(keys)]


def _duration(micros: int) -> str:
    """In a unit in which it is short: 30m, 12h, 90s."""
    for name, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000)):
        if micros % size == 0:
            return f"{micros // size}{name}"
    return f"{micros / 1e6:,.15g}s"
