"""A Databricks SQL warehouse on loopback: the stand-in `warehouse` as a process of its own."""

from __future__ import annotations

import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from attrs import field, frozen
from databricks import sql
from listening import address

HTTP_PATH = "/sql/1.0/warehouses/0123456789abcdef"
HERE = Path(__file__).parent
for noisy in ("databricks", "databricks.sql.unsafe"):  # the second one logs every byte that goes over the wire
    logging.getLogger(noisy).setLevel(logging.CRITICAL)
ONCE: dict[str, Any] = {"_enable_v3_retries": False, "_retry_stop_after_attempts_count": 1, "_retry_stop_after_attempts_duration": 1}
"""A client that does not try again: without it, it would do so for a quarter of an hour."""


@frozen
class DatabricksServer:
    """Where it listens, and the token of somebody who may do everything."""

    url: str
    token: str
    orders: str = field(repr=False)
    """The secret that lets a test take away permissions and the like."""
    http_path: str = HTTP_PATH
    _kept: list[Any] = field(factory=list, repr=False, eq=False)
    """A connection for `run`, as making one takes longer than most statements."""

    def order(self, **wanted: Any) -> dict[str, Any]:
        """Change one of `tokens`, `state`, `faults`, `store`, `revoked`, `conflicts`, `lenient`, `slow`, `forget_sessions`.

        Says what was asked for since `clear`.
        """
        request = urllib.request.Request(f"{self.url}/orders", json.dumps(wanted).encode(), {"Authorization": f"Bearer {self.orders}"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            told: dict[str, Any] = json.load(answer)
        if "forget_sessions" in wanted:
            self.hang_up()
        return told

    def mend(self) -> None:
        """All as it was at the start, and nothing remembered of what was asked for."""
        self.order(tokens=[self.token], state="running", faults=[], store="", revoked=[], conflicts=0, lenient=False, slow=0, clear=True)

    @contextmanager
    def connected(self, **options: Any) -> Iterator[Any]:
        """An independent client: it goes to the server itself, whatever stands between it and lakeward."""
        with closing(self._connection(**options)) as connection, connection.cursor() as cursor:
            yield cursor

    def _connection(self, **options: Any) -> Any:
        given = {"server_hostname": self.url, "http_path": self.http_path, "access_token": self.token, "enable_telemetry": False}
        return sql.connect(**given | {"_connection_uri": f"{self.url}{self.http_path}"} | ONCE | options)

    def run(self, *statements: str, parameters: Sequence[Any] | None = None) -> pa.Table:
        """The rows of the last one."""
        if not self._kept:
            self._kept.append(self._connection())
        try:
            with self._kept[0].cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement, parameters)
                return cursor.fetchall_arrow()
        except sql.exc.Error:
            self.hang_up()
            raise

    def hang_up(self) -> None:
        """Close the connection that is kept."""
        while self._kept:
            self._kept.pop().close()

    def schema(self) -> str:
        """A new one, with a volume `staged`: its name has the catalog before it."""
        name = f"lake.s{uuid.uuid4().hex[:12]}"
        self.run(f"CREATE SCHEMA {name}", f"CREATE VOLUME {name}.staged")
        return name

    def table(self, name: str) -> pa.Table:
        """All rows; an empty table when it is not there."""
        try:
            return self.run(f"SELECT * FROM {name}")
        except sql.exc.ServerOperationError as error:
            if "TABLE_OR_VIEW_NOT_FOUND" not in str(error):
                raise
            return pa.table({})

    def staged(self, schema: str) -> list[str]:
        """Names of the files in the volume of `schema()`."""
        names: list[str] = self.run(f"LIST '/Volumes/{schema.replace('.', '/')}/staged'")["name"].to_pylist()
        return names


@contextmanager
def databricks_server() -> Iterator[DatabricksServer]:
    """A server for the time being; it ends with the block."""
    orders = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        paths = [str(HERE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        known = os.environ | {"WAREHOUSE_ORDERS": orders, "PYTHONPATH": os.pathsep.join(paths)}
        with log.open("wb") as output:
            process = subprocess.Popen([sys.executable, "-m", "warehouse", folder], stdout=output, stderr=output, env=known)
        try:
            server = DatabricksServer(address(process, log, "listening on"), f"dapi{secrets.token_hex(16)}", orders)
            server.mend()
            yield server
            server.hang_up()
        finally:
            process.kill()
            process.wait()
