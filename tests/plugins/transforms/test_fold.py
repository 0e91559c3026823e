"""Every transform that goes by time reads the hour that the clocks show twice as its option says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakeward.yamlfile.build import build
from lakeward_plugins.transforms.emergency import Emergency
from lakeward_plugins.transforms.physics_validation import PhysicsValidation
from lakeward_plugins.transforms.schematize import Schematize
from lakeward_plugins.transforms.window import Window

RATE = {"id": "rate", "kind": "rate", "field": "v", "fail": 1, "unit": "1/s", "max_gap": "10m"}
TRANSFORMS: list[tuple[type, dict[str, Any]]] = [
    (Schematize, {"columns": {"timestamp": "timestamp"}}),
    (Window, {"aggregations": {"v": "mean"}, "window_minutes": 5}),
    (Emergency, {"severity_thresholds": {"v": 10}}),
    (PhysicsValidation, {"rules": [RATE]}),
]


@pytest.mark.parametrize(("kind", "options"), TRANSFORMS, ids=lambda one: one.__name__ if isinstance(one, type) else "")
def test_an_hour_that_happens_twice_is_refused_or_read(kind: type, options: dict[str, Any]) -> None:
    times = ["2026-10-25 02:30:00", "2026-10-25 12:00:00"]
    rows = pa.record_batch({"_row": [1, 2], "sensor_id": ["a", "a"], "timestamp": times, "v": [1.0, 2.0]})
    refused = {}
    for fold in ("reject", "before", "after"):
        made = build(kind, {**options, "naive_timezone": "Europe/Berlin", "fold": fold}, Path())
        found = made.apply(rows)
        refused[fold] = [key for port in ("rejected", "anomalies") if port in found for key in found[port]["_row"].to_pylist()]
    assert refused == {"reject": [1], "before": [], "after": []}
