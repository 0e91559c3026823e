"""Half of all requests are spoiled, for some batches to each sink that is elsewhere; `make faults` does 120, and each fault 20 times."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from attrs import evolve
from faultproxy import FAULTS

from crash.elsewhere import Servers
from crash.network import FAR, Crossing, cross
from crash.oracle import Verdict
from crash.program import Nursery


@pytest.mark.slow
@pytest.mark.parametrize("sink", FAR)
def test_every_row_arrives_once_through_a_bad_network(nursery: Nursery, servers: Servers, tmp_path: Path, sink: str) -> None:
    batches = 3 if sink == "far_table" else 12  # a commit is many requests, of which each must come through
    crossing = cross(tmp_path, nursery, servers, sink, batches, least=1, seed=1)
    print(crossing)
    assert crossing.faults(1) == []
    assert crossing.verdict.rows == (crossing.batches + 5) * 20


def test_what_does_not_come_through_is_told() -> None:
    good = Crossing(120, 60.0, dict.fromkeys(FAULTS, 20), Verdict(2400, 0), ())
    assert good.faults(20) == []
    assert "'slow': 19" in evolve(good, requests=good.requests | {"slow": 19}).faults(20)[0]
    lossy = Verdict(2400, 0, Counter({("bucket", "lost"): 20}))
    assert evolve(good, verdict=lossy).faults(20) == ["the oracle: 2400 rows, 0 windows: bucket: 20 lost"]
    assert len(evolve(good, complaints=["sink bucket rejected 20 of 20 rows"]).faults(20)) == 1
