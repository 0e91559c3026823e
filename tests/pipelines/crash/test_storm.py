"""A hundred kills at random moments; `make crash` does a thousand."""

from __future__ import annotations

import pytest

from crash.storm import storm


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_no_row_is_lost_and_none_takes_effect_twice(seed: int) -> None:
    tally = storm(kills=25, seed=seed, each=25)
    assert tally.exact, tally
    assert tally.kills.total() == 25
    assert tally.rows > 1000


@pytest.mark.slow
def test_the_storm_sees_a_planted_bug() -> None:
    assert not storm(kills=5, seed=1, each=5, plant="any_sink_is_enough", say=False).exact
