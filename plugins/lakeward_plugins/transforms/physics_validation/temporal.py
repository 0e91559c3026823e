"""Rules that compare a reading with those beside it: rate and spike."""

from __future__ import annotations

import numpy as np

from lakeward.grouping import NEVER, Array
from lakeward_plugins.transforms.physics_validation.fields import per_second
from lakeward_plugins.transforms.physics_validation.flags import FAIL, SUSPECT, Phrase, Verdict, in_unit, number
from lakeward_plugins.transforms.physics_validation.rule import US, Rule
from lakeward_plugins.transforms.physics_validation.sample import Memory, Sample, Series, series_of


def judge_rate(rule: Rule, sample: Sample, memory: Memory) -> tuple[Verdict, Memory]:
    """The change since the reading before, by the time between them, however short.

    With `max_gap` the reading before is the last good one not older than that; without it the row before must have a value.
    """
    series = series_of(sample)
    values = sample.numbers(rule.field, rule)[series.rows]
    good = ~np.isnan(values)
    memory, before, times = _before(series, values, good if rule.max_gap is not None else np.ones_like(good), memory)
    gap = series.times - times
    comparable = good & ~np.isnan(before) & (gap > 0)
    if rule.max_gap is not None:
        comparable &= gap <= rule.max_gap // US
    rates = np.full(len(values), np.nan)
    with np.errstate(over="ignore"):  # of absurd values
        rates[comparable] = np.abs(values[comparable] - before[comparable]) / (gap[comparable] / (1e6 * per_second(rule)))
    unit = sample.fields.unit(rule.field, rule)
    unit = rule.unit or (f"{unit}/s" if unit else None)
    return _beyond(rule, sample, unit, "changes by ", rates), memory


def judge_spike(rule: Rule, sample: Sample, memory: Memory) -> tuple[Verdict, Memory]:
    """How far a reading stands out from the rows before and after it; both must have a value.

    `differential`: the smaller of the two steps, when they go in opposite directions. `average`: the distance from the mean of
    both neighbours. The last row of a key has no row after it: it waits, or is not evaluated at the end of the input.
    """
    series = series_of(sample)
    values = sample.numbers(rule.field, rule)[series.rows]
    memory, before, earlier = _before(series, values, np.ones(len(values), np.bool_), memory)
    follows = np.append(series.keys[1:] == series.keys[:-1], False)[: len(values)]
    after = np.where(follows, np.append(values[1:], np.nan)[: len(values)], np.nan)
    if rule.max_gap is not None:
        later = np.append(series.times[1:], NEVER)[: len(values)]
        near = (series.times - earlier <= rule.max_gap // US) & (later - series.times <= rule.max_gap // US)
        before = np.where(near, before, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        if rule.method == "average":
            height = np.abs(values - (before + after) / 2)
        else:
            up, down = values - before, after - values
            turns = np.sign(up) * np.sign(down) < 0
            height = np.where(np.isnan(up) | np.isnan(down), np.nan, np.where(turns, np.minimum(np.abs(up), np.abs(down)), 0.0))
    return _beyond(rule, sample, sample.fields.unit(rule.field, rule), "stands out by ", height), memory


def _before(series: Series, values: Array, wanted: Array, memory: Memory) -> tuple[Memory, Array, Array]:
    """For each row value and time of the wanted one before it (NaN and NEVER for none), and what to remember of the rows that leave."""
    last = _by_key(memory, "value", series.count, np.nan)
    times = _by_key(memory, "time", series.count, NEVER)
    places = series.previous(wanted)
    known = places >= 0
    before = np.where(known, values[places], last[series.keys])
    earlier = np.where(known, series.times[places], times[series.keys])
    newest = np.maximum.accumulate(np.where(wanted, np.arange(len(wanted)), -1))[series.ends]
    newest = newest[newest >= series.begins[series.ends]]
    last[series.keys[newest]], times[series.keys[newest]] = values[newest], series.times[newest]
    return {"value": last, "time": times}, before, earlier


def _by_key(memory: Memory, name: str, count: int, nothing: float) -> Array:
    """A copy of what is remembered, with room for new keys."""
    known = memory.get(name, np.zeros(0, type(nothing)))
    return np.concatenate([known, np.full(count - len(known), nothing)])


def _beyond(rule: Rule, sample: Sample, unit: str | None, words: str, values: Array) -> Verdict:
    """`values` of the series that are above `suspect` or `fail`; NaN where nothing could be compared."""
    asked, series, column = sample.asked(rule), series_of(sample), sample.column(rule.field)
    limits = [(name, rank, rule.threshold(name)) for name, rank in (("fail", FAIL), ("suspect", SUSPECT))]
    given = [(name, rank, limit) for name, rank, limit in limits if limit is not None]
    phrases = [Phrase(rank, f"{column} {words}", f", more than {number(limit)}{in_unit(unit)}", limit) for _, rank, limit in given]
    found, which, evaluated = np.full(sample.count, np.nan), np.full(sample.count, -1), np.zeros(sample.count, np.bool_)
    found[series.rows], evaluated[series.rows] = values, ~np.isnan(values)
    if asked is not None:
        evaluated &= asked
    for place, (_, _, limit) in enumerate(given):
        which[(which < 0) & (found > limit) & evaluated] = place
    rows = np.flatnonzero(which >= 0)
    return Verdict(rule.id, (column,), unit, tuple(phrases), rows, which[rows], found[rows], evaluated=evaluated)
