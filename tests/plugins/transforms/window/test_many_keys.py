"""Keys that come and go: those that are silent are forgotten when there are too many, and nothing shows it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from window.rows import Row, batch_of, feed, seconds, window

from lakeward import Refused
from lakeward_plugins.transforms.window import Shape

SHAPES = {
    "tumbling": Shape(size=seconds(10)),
    "hopping": Shape(kind="hopping", size=seconds(20), every=seconds(10)),
    "session": Shape(kind="session", gap=seconds(5)),
}


def trips(count: int) -> list[Row]:
    """Each key has a few rows and then never again, but for some that come once more when they are forgotten, on time or late."""
    luck = random.Random(1)
    rows: list[Row] = [(10.0 * trip + luck.random() * 30, f"trip {trip}", luck.random()) for trip in range(count) for _ in range(4)]
    again = [(moment - luck.choice([0.0, 100.0]), f"trip {luck.randrange(1 + int(moment / 10))}", 1.0) for moment, _, _ in rows[::7]]
    rows.sort(key=lambda row: row[0] + luck.random() * 8)
    for place, row in enumerate(again):
        rows.insert(8 * place, row)
    return rows


@pytest.mark.parametrize("group_by", [["sensor_id"], ["sensor_id", "hour"]])
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("scope", [{"watermark_scope": "global"}, {"idle_timeout_s": seconds(15)}])
def test_agg_14_keys_that_are_silent_are_forgotten_and_nothing_shows_it(scope: dict[str, Any], kind: str, group_by: list[str]) -> None:
    batch = batch_of(trips(100))
    options = {
        "window": SHAPES[kind], "allowed_lateness_s": seconds(20), "group_by": group_by,
        "aggregations": {"v": ["mean", "median", "last", "time_weighted_mean"]},
    }  # fmt: skip
    cuts = range(0, batch.num_rows, 13)
    many, few = window(**options, **scope), window(**options, **scope, max_open_windows=45)
    want = feed(many, batch, cuts)
    assert feed(few, batch, cuts) == want
    assert want["late"]
    assert len(few.state()) < len(many.state())
    tight = {**options, **scope, "max_open_windows": 45}
    assert feed(window(**tight), batch, cuts, lambda: window(**tight)) == want


def test_keys_with_watermarks_of_their_own_are_never_forgotten() -> None:
    with pytest.raises(Refused, match=r"31 keys are known, max_open_windows allows 30; .* idle_timeout_s or watermark_scope"):
        feed(window(max_open_windows=30, on_state_overflow="spill"), batch_of(trips(40)), range(200))
