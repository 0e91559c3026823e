"""Kills of pipelines with several sinks at random moments, and twenty of each kind of sink; `make crash` does more than ten times that."""

from __future__ import annotations

import pytest

from crash.elsewhere import Servers
from crash.storm import KINDS, storm


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])  # with Parquet files, Delta tables, archives, windows
def test_no_row_is_lost_and_none_takes_effect_twice(seed: int) -> None:
    tally = storm(kills=25, seed=seed, each=25)
    assert tally.exact, tally
    assert tally.kills.total() == 25
    assert tally.rows > 1000


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("parquet", "archive")])
def test_no_row_of_any_sink_is_lost_or_takes_effect_twice(kind: str, servers: Servers) -> None:
    tally = storm(kills=20, seed=5, each=20, kind=kind, servers=servers)
    assert tally.exact, tally
    assert tally.kills.total() == 20
    assert tally.rows > 100


@pytest.mark.slow
def test_the_storm_sees_a_planted_bug() -> None:
    assert not storm(kills=5, seed=1, each=5, plant="any_sink_is_enough", say=False).exact
