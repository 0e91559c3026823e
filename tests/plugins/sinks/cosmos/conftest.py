"""Sinks that are closed, and parcels for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from azure.cosmos import ContainerProxy
from cosmos_server import CosmosServer
from cosmosdb.documents import KEY

from lakeward import Encoding, Parcel
from lakeward.secrets import Secret
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.cosmos import CosmosSink

READINGS = pa.record_batch(
    {"_row": [1, 2, 3, 4], "city": ["Oslo", "Rome", "Oslo", "Oslo"], "id": [1, 2, 3, 4], "temperature": [20.5, -3.0, None, 1.0]}
)


@pytest.fixture
def sink_of(cosmos: CosmosServer) -> Iterator[Callable[..., CosmosSink]]:
    """A sink into a container that a client made, unless options say otherwise."""
    made: list[CosmosSink] = []

    def make(container: ContainerProxy, /, **options: Any) -> CosmosSink:
        database = container.container_link.split("/")[1]
        given = {"endpoint": cosmos.url, "key": Secret(KEY, "env:KEY"), "database": database, "container": container.id}
        made.append(CosmosSink(**{**given, **options}))
        return made[-1]

    yield make
    for sink in made:
        sink.close()


@pytest.fixture
def parcel_of(tmp_path: Path) -> Callable[..., Parcel]:
    """A parcel of these rows; other arguments make another token."""

    def make(rows: pa.RecordBatch = READINGS, **token: Any) -> Parcel:
        return make_parcel(tmp_path / "spool", rows, encoding=Encoding(row_key=True), **token)

    return make
