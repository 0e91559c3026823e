"""Real series for the tests of this folder."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

DATA = Path(os.environ.get("LAKEWARD_TEST_DATA", Path(__file__).parents[4].parent / "shared" / "data"))
Real = Callable[..., pa.RecordBatch]


@pytest.fixture(scope="session")
def real() -> Real:
    """`real("name.db", *columns)`: the rows of a real sensor, with `_row`, in the order of its ids."""

    def read(name: str, *columns: str, where: str = "1") -> pa.RecordBatch:
        if not (DATA / name).exists():
            pytest.skip(f"{name} is not in {DATA}; set LAKEWARD_TEST_DATA")
        with closing(sqlite3.connect(f"file:{DATA / name}?mode=ro", uri=True)) as connection:
            rows = connection.execute(f"SELECT id, {', '.join(columns)} FROM sensor_readings WHERE {where} ORDER BY id").fetchall()
        return pa.RecordBatch.from_pydict(dict(zip(["_row", *columns], map(list, zip(*rows, strict=True)), strict=True)))

    return read
