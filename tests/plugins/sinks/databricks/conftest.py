"""A schema of its own for each test, and sinks that write into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from databricks_server import DatabricksServer

from lakeward.secrets import Secret
from lakeward_plugins.sinks.databricks import DatabricksSink


@pytest.fixture
def schema(databricks: DatabricksServer) -> str:
    """With the volume `staged`; the table of a sink is `readings`."""
    return databricks.schema()


@pytest.fixture
def sink_of(databricks: DatabricksServer, schema: str) -> Iterator[Callable[..., DatabricksSink]]:
    made: list[DatabricksSink] = []

    def make(**options: Any) -> DatabricksSink:
        mode = options.get("mode", "copy")
        given = {"host": databricks.url, "http_path": databricks.http_path, "token": Secret(databricks.token, "env:T"), "create": True}
        given |= {"table": f"{schema}.readings"} | ({"volume": f"{schema}.staged"} if mode == "copy" else {})
        made.append(DatabricksSink(**{**given, **options}))
        return made[-1]

    yield make
    for sink in made:
        sink.close()
