from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward.components import filtered, rejected
from lakeward.pipeline import BrokenContract, Outcome
from lakeward.reconcile import Fates, fates

PLACES = ("sink a", "sink b", "taken", "removed", "dead 1", "dead 2")


def rows(keys: list[int]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"_row": pa.array(keys, pa.int64()), "value": pa.array([str(key) for key in keys], pa.string())})


def outcome(where: dict[int, frozenset[str]]) -> Outcome:
    """What a pipeline would say when each row went to these places."""
    at = {place: [key for key, places in where.items() if place in places] for place in PLACES}
    found = Outcome(shares={name: rows(at[f"sink {name}"]) for name in "ab" if at[f"sink {name}"]})
    found.dead = [(node, rejected(rows(at[f"dead {node}"]), "type")) for node in "12" if at[f"dead {node}"]]
    found.taken = [rows(at["taken"]).column("_row")]
    found.removed = [filtered(rows(at["removed"]), "rule").column("_row")]
    return found


def expected(where: dict[int, frozenset[str]]) -> tuple[int, int, int]:
    """Delivered, filtered, dead: by the rule, row by row."""
    fate = ["dead" if places & {"dead 1", "dead 2"} else "removed" if places == {"removed"} else "delivered" for places in where.values()]
    return fate.count("delivered"), fate.count("removed"), fate.count("dead")


SPLITS = st.dictionaries(st.integers(-(2**62), 2**62), st.frozensets(st.sampled_from(PLACES), min_size=1), max_size=30)


@given(SPLITS, st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_each_row_read_has_exactly_one_fate(where: dict[int, frozenset[str]], unread: int) -> None:
    found = fates(rows(sorted(where)), unread, outcome(where))
    delivered, removed, dead = expected(where)
    assert found == Fates(len(where) + unread, delivered, removed, dead + unread)
    assert found.read == found.delivered + found.filtered + found.dead


@given(SPLITS.filter(bool), st.data())
@settings(max_examples=60, deadline=None)
def test_a_lost_row_stops_everything(where: dict[int, frozenset[str]], data: Any) -> None:
    lost = data.draw(st.sets(st.sampled_from(sorted(where)), min_size=1))
    kept = {key: places for key, places in where.items() if key not in lost}
    with pytest.raises(BrokenContract, match=f"^{len(lost)} of {len(where)} rows were read but neither delivered, filtered nor rejected"):
        fates(rows(sorted(where)), 0, outcome(kept))


def test_a_transform_that_drops_the_key_is_found_out() -> None:
    share = rows([1, 2]).select(["value"])
    with pytest.raises(BrokenContract, match=r"^2 of 2 rows"):
        fates(rows([1, 2]), 0, Outcome(shares={"a": share}))


def test_a_row_with_another_key_does_not_make_up_for_a_lost_one() -> None:
    with pytest.raises(BrokenContract, match=r"^1 of 2 rows"):
        fates(rows([1, 2]), 0, Outcome(shares={"a": rows([1, 3])}))


def test_rows_from_earlier_batches_do_not_count_again() -> None:
    assert fates(rows([3]), 0, Outcome(shares={"a": rows([1, 2, 3])})) == Fates(1, 1, 0, 0)


def test_an_empty_batch_with_only_unreadable_rows_counts_them() -> None:
    assert fates(rows([]), 4, Outcome()) == Fates(4, 0, 0, 4)


def test_a_row_that_several_sinks_take_counts_once() -> None:
    assert fates(rows([1, 2]), 0, Outcome(shares={"a": rows([1, 2]), "b": rows([1, 2]), "c": rows([2])})) == Fates(2, 2, 0, 0)


def keys(*numbers: int) -> pa.Array:
    return pa.array(numbers, pa.int64())


def test_a_row_that_waits_has_no_fate_and_gets_one_when_it_leaves() -> None:
    assert fates(rows([1, 2]), 0, Outcome(shares={"a": rows([1])}, waiting=[keys(2)])) == Fates(2, 1, 0, 0, 1)
    assert fates(rows([]), 0, Outcome(shares={"a": rows([2])}, waited=[keys(2)])) == Fates(0, 1, 0, 0, -1)
    left = Outcome(dead=[("a", rejected(rows([2]), "type"))], removed=[keys(3)], waited=[keys(2, 3)], waiting=[keys(4)])
    assert fates(rows([4]), 0, left) == Fates(1, 0, 1, 1, -1)


def test_a_row_that_waits_in_two_transforms_is_one() -> None:
    assert fates(rows([1, 2]), 0, Outcome(shares={"a": rows([1])}, waiting=[keys(2), keys(2)])) == Fates(2, 1, 0, 0, 1)


def test_rows_of_two_inputs_may_wait_under_one_key() -> None:
    assert fates(rows([5]), 0, Outcome(waited=[keys(5)], waiting=[keys(5, 5)])) == Fates(1, 0, 0, 0, 1)
    assert fates(rows([5]), 0, Outcome(shares={"a": rows([5])}, waited=[keys(5)], waiting=[keys(5)])) == Fates(1, 1, 0, 0, 0)


def test_a_row_that_no_longer_waits_and_went_nowhere_stops_everything() -> None:
    with pytest.raises(BrokenContract, match=r"^1 of 1 rows"):
        fates(rows([1]), 0, Outcome(shares={"a": rows([1])}, waited=[keys(2)]))
