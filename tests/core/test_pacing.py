"""Pauses with a given randomness and clock."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward.errors import NoRoom, Refused, Retry
from lakeward.pacing import BURST, LONGEST_PAUSE, LONGEST_WISH, OPENS_AFTER, RETRIES_A_MINUTE, RETRIES_PER_ANSWER, Pace, pause_after

WISHES = st.none() | st.floats(allow_nan=True, allow_infinity=True)
ERRORS = st.builds(lambda after, throttled: Retry("busy", after, throttled=throttled), WISHES, st.booleans())


def at(place: float) -> Any:
    """A jitter that always falls on the same place between low and high."""
    return lambda low, high: low + place * (high - low)


def test_pauses_double_up_to_a_minute_and_may_be_nothing() -> None:
    assert [pause_after(failures, OSError(), at(1)) for failures in (1, 2, 3, 7, 20, 10**6)] == [1, 2, 4, 60, 60, 60]
    assert pause_after(20, OSError(), at(0)) == 0


def test_who_asks_for_fewer_requests_gets_half_of_the_pause_at_least() -> None:
    assert pause_after(1, Retry("slow down", throttled=True), at(0)) == 0.5
    assert pause_after(20, Retry("slow down", throttled=True), at(0)) == 30


def test_a_wish_is_granted_up_to_an_hour() -> None:
    assert [pause_after(3, Retry("busy", after), at(1)) for after in (0, 7.5, 3600, 3601, math.inf)] == [0, 7.5, 3600, 3600, 3600]
    assert [pause_after(1, Retry("busy", after), at(1)) for after in (-1, math.nan, -math.inf)] == [1, 1, 1], "no wish at all"


def test_a_wish_makes_a_source_no_faster_than_its_usual_pace_unless_it_waits_for_room() -> None:
    assert [pause_after(1, Retry("one is broken", after), at(1), least=5) for after in (0, 2, 7)] == [5, 5, 7]
    assert pause_after(1, NoRoom("full"), at(1), least=600) == 1
    assert pause_after(1, Retry("locked"), at(1), least=600) == 1, "no wish at all"


@given(st.integers(1, 10**9), ERRORS, st.floats(0, 1), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_pause_is_never_too_long_nor_near_nothing_when_it_is_gentle(failures: int, error: Retry, place: float, gently: bool) -> None:
    pause = pause_after(failures, error, at(place), gently=gently)
    wished = error.after is not None and error.after >= 0
    assert 0 <= pause <= (LONGEST_WISH if wished else LONGEST_PAUSE)
    if wished:
        assert pause == min(error.after or 0, LONGEST_WISH)
    elif gently or error.throttled:
        assert pause >= 0.5


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_circuit_opens_after_five_failures_and_closes_with_one_answer() -> None:
    pace = Pace(at(0), Clock())
    pauses = []
    for number in range(1, 12):
        pauses.append(pace.failed(OSError()))
        assert pace.is_open == (number >= OPENS_AFTER)
    assert pauses[:4] == [0, 0, 0, 0]
    assert pauses[4:8] == [8, 16, 30, 30], "it is only tried out from now on"
    pace.answered()
    assert (pace.is_open, pace.failures) == (False, 0)


def test_what_needs_a_human_is_tried_soon_and_then_once_in_a_minute() -> None:
    pace = Pace(at(1), Clock())
    assert [pace.failed(Refused("no permission")) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2)), min_size=1, max_size=400), st.floats(0, 1), st.sampled_from([0.0, None]))
@settings(max_examples=100, deadline=None)
def test_a_storm_of_fast_failures_stays_within_the_budget(story: list[tuple[bool, float]], place: float, wish: float | None) -> None:
    """Whatever a server answers and however fast: in any span of time, retries are bounded by the budget."""
    clock = Clock()
    pace = Pace(at(place), clock)
    retries, answers = list[float](), list[float]()
    for fails, takes in story:
        clock.now += takes / 100
        if fails:
            clock.now += pace.failed(Retry("busy", wish))
            retries.append(clock.now)
        else:
            pace.answered()
            answers.append(clock.now)
    for first in range(0, len(retries), 7):
        for last in range(first, len(retries), 11):
            span = retries[last] - retries[first]
            earned = RETRIES_PER_ANSWER * sum(retries[first] <= moment <= retries[last] for moment in answers)
            assert last - first <= BURST + span * RETRIES_A_MINUTE / 60 + earned + 1e-6


@pytest.mark.parametrize("answers", [0, 50])
def test_the_budget_lets_through_ten_a_minute_and_a_tenth_of_what_works(answers: int) -> None:
    clock = Clock()
    pace = Pace(at(0), clock)
    count = 0
    while clock.now < (3 if answers else 600):
        clock.now += pace.failed(Retry("busy", 0)) + 0.001
        count += 1
        for _ in range(answers):
            pace.answered()
    if answers:
        assert count > 2_500, "fifty answers earn the next five retries"
    else:
        assert count == pytest.approx(BURST + 600 * RETRIES_A_MINUTE / 60, abs=2)
