"""A Cosmos DB account on loopback: the stand-in of `cosmosdb` as a process of its own, and what a test does with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import define
from azure.cosmos import ContainerProxy, CosmosClient, PartitionKey
from cosmosdb.documents import KEY

SYSTEM = {"_rid", "_self", "_etag", "_attachments", "_ts"}
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@define(slots=False)
class CosmosServer:
    """Where it listens; its key is `KEY`."""

    url: str

    @cached_property
    def client(self) -> CosmosClient:
        """An independent reader: it goes to the server itself, whatever stands between it and lakeward."""
        return CosmosClient(self.url, KEY, enable_endpoint_discovery=False, connection_timeout=10)

    def container(self, partition_key: str = "/city", database: str = "", name: str = "readings", **more: Any) -> ContainerProxy:
        """A new one, in a new database unless told which; `more` is what the library takes."""
        made = self.client.create_database_if_not_exists(database or f"lake-{uuid.uuid4().hex[:12]}")
        return made.create_container_if_not_exists(name, PartitionKey(partition_key), **more)

    def set(self, **settings: Any) -> dict[str, int]:
        """Change `keys`, `firewall`, `budget` or `script` of the account; gives `requests`, `throttled`, and what is left of `script`."""
        request = urllib.request.Request(f"{self.url}/stand-in", json.dumps(settings).encode(), method="POST")
        with DIRECT.open(request, timeout=10) as answer:
            counted: dict[str, int] = json.loads(answer.read())
        return counted

    def reset(self) -> None:
        """Settings as at the start; documents stay."""
        self.set(keys={KEY: "all"}, firewall=False, budget=0, script=[])


def documents(container: ContainerProxy) -> list[dict[str, Any]]:
    """All that is in it, without what the service adds."""
    found = container.query_items("SELECT * FROM c", enable_cross_partition_query=True, max_item_count=1000)
    return [{name: value for name, value in document.items() if name not in SYSTEM} for document in found]


@contextmanager
def cosmos_server() -> Iterator[CosmosServer]:
    """A server for the time being; it ends with the block."""
    with tempfile.TemporaryFile() as errors:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
        command = [sys.executable, "-m", "cosmosdb"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True)
        try:
            assert process.stdout
            told = process.stdout.readline()
            if not told.startswith("Running on "):
                errors.seek(0)
                raise RuntimeError(f"the stand-in did not start: {errors.read().decode()}")
            yield CosmosServer(told.split()[-1])
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
