"""One connection to a warehouse: opened when needed, kept, and opened anew when it is old or lost; and the files in volumes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

import pyarrow as pa
from attrs import define, field
from databricks import sql
from databricks.sql.client import Connection, Cursor

from lakeward.secrets import Secret
from lakeward_plugins.sinks.databricks.names import literal

IDLE = 600.0
"""Seconds without a word after which a connection is not used again: the warehouse may have forgotten it."""
OLDEST = 3600.0
"""Seconds; the client keeps something of every statement for as long as its connection lives."""
# The client prints what went wrong as an error, addresses with signatures in it; urllib3 prints each request below INFO.
QUIET = {
    **dict.fromkeys(("databricks", "databricks.sql.unsafe", "urllib3.connection", "urllib3.connectionpool"), logging.CRITICAL),
    "urllib3": logging.INFO,
}
SESSION = {"ansi_mode": "true", "timezone": "UTC"}
"""A value that does not fit is an error, and times without a zone are of none."""


@define(eq=False)
class Warehouse:
    """Where it is, and who asks."""

    address: str
    """Such as https://adb-1.azuredatabricks.net."""
    http_path: str
    token: Secret
    timeout: float
    """Seconds to wait for an answer."""
    statement_timeout: float
    _connection: Connection | None = field(init=False, default=None, repr=False)
    _cursor: Cursor | None = field(init=False, default=None, repr=False)
    _opened: float = field(init=False, default=0.0)
    _used: float = field(init=False, default=0.0)

    def run(self, statement: str, values: Sequence[Any] | None = None) -> dict[str, Any]:
        """Run a statement; the first row of its answer, empty when there is none."""
        rows = self.table(statement, values).slice(0, 1).to_pylist()
        return dict(rows[0]) if rows else {}

    def table(self, statement: str, values: Sequence[Any] | None = None, limit: int | None = None) -> pa.Table:
        """Run a statement; the rows of its answer, or the first of them."""
        cursor = self._open()
        cursor.execute(statement, list(values) if values else None)
        return cursor.fetchall_arrow() if limit is None else cursor.fetchmany_arrow(limit)

    def upload(self, path: str, file: BinaryIO) -> None:
        """Put a file into a volume, in the place of one that is there.

        The client gets a stream and no folder that it may read from, so an answer cannot make it send any other file of this machine.
        """
        self._open().execute(f"PUT '__input_stream__' INTO {literal(path)} OVERWRITE", input_stream=file)

    def remove(self, path: str) -> None:
        """Take a file out of a volume."""
        self._open().execute(f"REMOVE {literal(path)}")

    def listed(self, folder: str) -> list[str]:
        """Names of what is in a folder of a volume."""
        return [str(name) for name in self.table(f"LIST {literal(folder)}").column("name").to_pylist()]

    def drop(self) -> None:
        """Forget a connection that is of no use any more; the warehouse is not asked."""
        if self._connection:
            self._connection.session.is_open = False
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection, self._cursor = self._connection, None, None
        if connection:
            connection.close()

    def _open(self) -> Cursor:
        now = time.monotonic()
        if self._connection and (now - self._used > IDLE or now - self._opened > OLDEST):
            self.drop()
        if not self._cursor:
            for name, least in QUIET.items():
                logging.getLogger(name).setLevel(max(least, logging.getLogger(name).getEffectiveLevel()))
            self._connection = self._connect()
            self._cursor = self._connection.cursor()  # one for all statements: the client never forgets a cursor
            self._opened = now
        self._used = now
        return self._cursor

    def _connect(self) -> Connection:
        return sql.connect(
            server_hostname=self.address.removeprefix("https://"),
            http_path=self.http_path,
            _connection_uri=f"{self.address}/{self.http_path.lstrip('/')}",
            access_token=self.token.reveal(),
            session_configuration={**SESSION, "statement_timeout": str(max(1, round(self.statement_timeout)))},
            user_agent_entry="lakeward",
            enable_telemetry=False,
            use_cloud_fetch=False,
            staging_allowed_local_path=os.devnull,  # early versions want one, even to remove a file; a server that asks for it gets nothing
            _socket_timeout=self.timeout,
            # the kernel tries again; a library that does so as well multiplies the attempts, and this one waits a minute before each
            _enable_v3_retries=False,
            _retry_stop_after_attempts_count=1,
            _retry_stop_after_attempts_duration=1.0,
            _retry_delay_min=0.1,
            _retry_delay_max=3600.0,  # never waited for, as only one attempt is allowed: it is how a long Retry-After is passed on to us
        )
