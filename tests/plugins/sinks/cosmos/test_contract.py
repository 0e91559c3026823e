"""What every sink promises; items are read back by the library itself."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cosmos_server import CosmosServer, documents

from lakeward.testing import SinkContract
from lakeward.testing.hostile import EXTREMES, TYPES
from lakeward_plugins.sinks.cosmos import CosmosSink

BACK: dict[str, Callable[[Any], Any]] = {
    "binary": base64.b64decode, "date32": date.fromisoformat, "time64": time.fromisoformat, "timestamp": datetime.fromisoformat,
    "timestamp_utc": datetime.fromisoformat, "decimal": Decimal, "big_integers": int, "not_finite": float,
}  # fmt: skip


class TestCosmosSink(SinkContract):
    watched = False  # there are no files to watch; a batch of up to 100 items of a partition is visible at once

    @pytest.fixture(autouse=True)
    def in_a_container(self, cosmos: CosmosServer, sink_of: Callable[..., CosmosSink]) -> None:
        self.container, self.sink_of = cosmos.container("/id"), sink_of

    def make(self, tmp_path: Path) -> CosmosSink:
        return self.sink_of(self.container, partition_key="/id")

    def read_back(self, tmp_path: Path) -> pa.Table:
        found = documents(self.container)
        for item in found:
            item["_row"] = int(item.pop("id").rsplit("-", 1)[-1])
        names = list(found[0]) if found else []
        return pa.table({name: column(name, [item[name] for item in found]) for name in names})


def column(name: str, values: list[Any]) -> pa.Array[Any]:
    word = name.removeprefix("a_")
    kind = {**TYPES, **EXTREMES}.get(word)
    if kind is None:
        return pa.array(values)
    back = BACK.get(word, lambda value: value)
    array = pa.array([None if value is None else back(value) for value in values])
    return array.cast(kind.type) if word not in ("dictionary", "list", "struct") else array
