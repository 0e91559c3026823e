"""Sinks that are elsewhere: their servers on loopback, a new place there for each life, and what is in it.

It is read by clients that go to the servers themselves, whatever stands between them and lakeward.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import cached_property
from typing import Protocol

import polars
from attrs import define, field, frozen
from azure.cosmos import ContainerProxy
from cosmos_server import CosmosServer, cosmos_server, documents
from cosmosdb.documents import KEY
from databricks_server import DatabricksServer, databricks_server
from deltalake import DeltaTable
from s3_server import ALONE, S3Server, s3_server

COLUMNS = ("id", "timestamp", "sensor_id", "temperature")
Rows = Counter[tuple[object, ...]]


class Place(Protocol):
    """Where the sinks of one pipeline write to."""

    @property
    def address(self) -> str:
        """Of its server."""

    def known(self, address: str) -> dict[str, str]:
        """The environment of a program that goes to this address, of the server or of something in front of it."""

    def rows(self, sink: str) -> Rows:
        """What is there; nothing when the sink has made nothing yet."""

    def leftovers(self) -> int:
        """Files that wait for nothing any more."""


@frozen
class Here:
    """No server is needed."""

    address: str = ""

    def known(self, address: str) -> dict[str, str]:
        return {}

    def rows(self, sink: str) -> Rows:
        raise NotImplementedError(sink)

    def leftovers(self) -> int:
        return 0


@frozen
class InS3:
    """A bucket."""

    server: S3Server
    bucket: str

    @property
    def address(self) -> str:
        return self.server.url

    def known(self, address: str) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": self.server.access_key_id, "AWS_SECRET_ACCESS_KEY": self.server.secret_access_key}
        return ALONE | keys | {"SERVER": address, "PLACE": self.bucket}

    def rows(self, sink: str) -> Rows:
        if sink == "bucket":
            table = self.server.table(self.bucket, "raw/")
            return Counter(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)) if table.num_rows else Counter()
        options = {
            "aws_endpoint_url": self.server.url, "aws_allow_http": "true", "aws_region": "us-east-1",
            "aws_access_key_id": self.server.access_key_id, "aws_secret_access_key": self.server.secret_access_key,
        }  # fmt: skip
        uri = f"s3://{self.bucket}/table"
        if not DeltaTable.is_deltatable(uri, options):
            return Counter()
        return Counter(polars.read_delta(uri, storage_options=options).select(COLUMNS).rows())

    def leftovers(self) -> int:
        return 0


@frozen
class InDatabricks:
    """A schema with a volume."""

    server: DatabricksServer
    schema: str

    @property
    def address(self) -> str:
        return self.server.url

    def known(self, address: str) -> dict[str, str]:
        token = {"DATABRICKS_TOKEN": self.server.token, "HTTP_PATH": self.server.http_path}
        return token | {"SERVER": address, "PLACE": self.schema, "NO_PROXY": "127.0.0.1"}

    def rows(self, sink: str) -> Rows:
        table = self.server.table(f"{self.schema}.{sink}")
        return Counter(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)) if table.num_rows else Counter()

    def leftovers(self) -> int:
        return len(self.server.staged(self.schema))


@frozen
class InCosmos:
    """A database with two containers."""

    containers: dict[str, ContainerProxy]
    database: str
    address: str

    def known(self, address: str) -> dict[str, str]:
        return {"COSMOS_KEY": KEY, "SERVER": address, "PLACE": self.database, "NO_PROXY": "127.0.0.1"}

    def rows(self, sink: str) -> Rows:
        found = documents(self.containers[sink])
        return Counter((item["row_id"], *(item[name] for name in COLUMNS[1:])) for item in found)

    def leftovers(self) -> int:
        return 0


@define(slots=False)
class Servers:
    """Each is started when a pipeline needs it for the first time; `close` ends them all."""

    _running: ExitStack = field(factory=ExitStack)

    @cached_property
    def s3(self) -> S3Server:
        return self._running.enter_context(s3_server())

    @cached_property
    def databricks(self) -> DatabricksServer:
        return self._running.enter_context(databricks_server())

    @cached_property
    def cosmos(self) -> CosmosServer:
        return self._running.enter_context(cosmos_server())

    def place(self, sinks: tuple[str, ...]) -> Place:
        """A new, empty one for these sinks of `pipeline.SINKS`: all of those that are elsewhere are at one server."""
        if {"bucket", "far_table"} & {*sinks}:
            return InS3(self.s3, self.s3.bucket())
        if {"copied", "inserted", "merged"} & {*sinks}:
            return InDatabricks(self.databricks, self.databricks.schema())
        if {"items", "items_latest"} & {*sinks}:
            items = self.cosmos.container("/sensor_id", name="items")
            database = items.container_link.split("/")[1]
            latest = self.cosmos.container("/sensor_id", database, "latest")
            return InCosmos({"items": items, "items_latest": latest}, database, self.cosmos.url)
        return Here()

    def close(self) -> None:
        self._running.close()
