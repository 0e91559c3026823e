"""From what rules found to columns: the flag of each field and row, and the reasons.

The flags are QARTOD's (the quality control manuals of the U.S. Integrated Ocean Observing System): 1 good, 2 not evaluated, 3 suspect,
4 fail, 9 missing. The strongest wins: fail, then suspect, good, not evaluated, missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward.grouping import Array

Ranks = npt.NDArray[np.uint8]
MISSING, NOT_EVALUATED, GOOD, SUSPECT, FAIL = range(5)  # so that the strongest flag is the greatest rank
FLAGS = pa.array([9, 2, 1, 3, 4], pa.int8())
SEVERITY = pa.array(["none", "none", "none", "suspect", "fail"])
TEXT = pa.string()
REASON = pa.struct(
    [
        ("rule_id", TEXT), ("fields", pa.list_(TEXT)), ("flag", pa.int8()), ("value", pa.float64()), ("limit", pa.float64()),
        ("unit", TEXT), ("message", TEXT),
    ]
)  # fmt: skip


@frozen
class Phrase:
    """One way to break a rule: how strong it is, and what its reasons say around the value."""

    rank: int
    before: str
    after: str = ""
    limit: float | None = None
    """None: there is none, or each reason has its own, which then follows `after`."""


@frozen(eq=False)
class Verdict:
    """What one rule says about the rows of a batch."""

    rule: str
    columns: tuple[str, ...]
    """That get the flag."""
    unit: str | None
    """Of value and limit."""
    phrases: tuple[Phrase, ...]
    rows: Array
    """That break the rule, ascending; what follows is of the same length."""
    which: Array
    """Place among the phrases."""
    values: Array
    """NaN for none."""
    limits: Array | None = None
    evaluated: Array | None = None
    """Which of all rows the rule could judge; None for all that have a value."""


def ranks_of(verdicts: Sequence[Verdict], missing: Mapping[str, Array]) -> dict[str, Ranks]:
    """For each checked column the rank of each row."""
    ranks = {name: np.where(gone, np.uint8(MISSING), np.uint8(NOT_EVALUATED)) for name, gone in missing.items()}
    whole = {name for verdict in verdicts if verdict.evaluated is None for name in verdict.columns}
    for name in whole:
        ranks[name] = np.where(missing[name], np.uint8(MISSING), np.uint8(GOOD))
    for verdict in verdicts:
        found = np.array([phrase.rank for phrase in verdict.phrases], np.uint8)[verdict.which]
        for name in verdict.columns:
            if verdict.evaluated is not None and name not in whole:
                np.maximum(ranks[name], GOOD, out=ranks[name], where=verdict.evaluated & ~missing[name])
            ranks[name][verdict.rows] = np.maximum(ranks[name][verdict.rows], found)
    return ranks


def reasons_of(verdicts: Sequence[Verdict], count: int) -> tuple[Any, Any]:
    """For each row the list of its reasons, in the order of the rules, and their messages as one text.

    Everything but value and text repeats, so it is laid out once for each phrase; text is made last, in its final order.
    """
    rows = _joined([verdict.rows for verdict in verdicts], np.int64)
    counts = np.bincount(rows, minlength=count)
    offsets: Any = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    if not len(rows):
        return pa.ListArray.from_arrays(offsets, pa.array([], REASON)), pa.nulls(count, TEXT)
    order = np.argsort(rows.astype(np.uint16) if count < 2**16 else rows, kind="stable")  # 16 bits sort much faster
    firsts = np.cumsum([0, *(len(verdict.phrases) for verdict in verdicts)])
    codes = _array(_joined([verdict.which + first for verdict, first in zip(verdicts, firsts, strict=False)], np.int64)[order])
    numbers = _joined([verdict.values for verdict in verdicts], np.float64)[order]
    values: Any = pa.array(numbers, mask=np.isnan(numbers))
    phrases = [(verdict, phrase) for verdict in verdicts for phrase in verdict.phrases]
    limits = pa.array([phrase.limit for _, phrase in phrases], pa.float64()).take(codes)
    before = pa.array([phrase.before for _, phrase in phrases]).take(codes)
    after = pa.array([phrase.after for _, phrase in phrases]).take(codes)
    message = pc.binary_join_element_wise(before, after, values.cast(TEXT).fill_null(""))  # the value stands between them
    if any(verdict.limits is not None for verdict in verdicts):
        own = _joined([_own_limits(verdict) for verdict in verdicts], np.float64)[order]
        own_limits: Any = pa.array(own, mask=np.isnan(own))
        limits = pc.coalesce(own_limits, limits)
        tails = pa.array([_tail(verdict) for verdict, _ in phrases]).take(codes)
        message = pc.binary_join_element_wise(message, tails, own_limits.cast(TEXT).fill_null(""))
    said = {
        "rule_id": pa.array([verdict.rule for verdict, _ in phrases]).take(codes),
        "fields": pa.array([list(verdict.columns) for verdict, _ in phrases], pa.list_(TEXT)).take(codes),
        "flag": FLAGS.take(pa.array([phrase.rank for _, phrase in phrases])).take(codes),
        "value": values,
        "limit": limits,
        "unit": pa.array([verdict.unit for verdict, _ in phrases], TEXT).take(codes),
        "message": message,
    }
    messages = pa.ListArray.from_arrays(offsets, message, mask=_array(counts == 0))
    reasons = pa.StructArray.from_arrays(list(said.values()), fields=list(REASON))
    return pa.ListArray.from_arrays(offsets, reasons), pc.binary_join(messages, "; ")


def in_unit(unit: str | None) -> str:
    """The unit behind a number in a message."""
    return f" {unit}" if unit else ""


def number(value: float) -> str:
    """As it stands in messages."""
    return str(pa.scalar(value, pa.float64()).cast(TEXT))


def _tail(verdict: Verdict) -> str:
    return in_unit(verdict.unit) if verdict.limits is not None else ""


def _own_limits(verdict: Verdict) -> Array:
    return verdict.limits if verdict.limits is not None else np.full(len(verdict.rows), np.nan)


def _joined(parts: list[Array], kind: Any) -> Array:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind, copy=False)


def _array(values: Array) -> Any:
    return pa.array(values)  # the stubs of pyarrow take every numpy array for booleans
