"""What every sink promises, by all three ways into a table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from databricks_server import DatabricksServer

from lakeward.testing import SinkContract
from lakeward_plugins.sinks.databricks import DatabricksSink

BACK: dict[str, Callable[[Any], Any]] = {"a_time64": time.fromisoformat, "a_duration": lambda micro: timedelta(microseconds=micro)}
"""What Databricks has no type for, in its first form again."""


class AtTheWarehouse(SinkContract):
    __test__ = False
    watched = False  # there are no files to watch: a statement takes effect as a whole, which the stand-in does by a transaction

    @property
    def options(self) -> dict[str, Any]:
        return {}

    @pytest.fixture(autouse=True)
    def at_the_warehouse(self, databricks: DatabricksServer, schema: str, sink_of: Callable[..., DatabricksSink]) -> None:
        self.server, self.schema, self.sink_of = databricks, schema, sink_of

    def make(self, tmp_path: Path) -> DatabricksSink:
        return self.sink_of(**self.options)

    def read_back(self, tmp_path: Path) -> pa.Table:
        rows = self.server.table(f"{self.schema}.readings")
        for name in BACK.keys() & set(rows.column_names):
            values = [None if value is None else BACK[name](value) for value in rows[name].to_pylist()]
            rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
        return rows


class TestCopy(AtTheWarehouse):
    __test__ = True


class TestInsert(AtTheWarehouse):
    __test__ = True
    unsupported = ("odd_text",)  # a text of a megabyte is more than the parameters of a statement may have

    @property
    def options(self) -> dict[str, Any]:
        return {"mode": "insert"}


@pytest.mark.one_python
class TestMergeOfFiles(AtTheWarehouse):
    __test__ = True

    @property
    def options(self) -> dict[str, Any]:
        return {"mode": "merge", "upsert_by": ["_row"], "revision": "_row", "row_key": True, "volume": f"{self.schema}.staged"}
