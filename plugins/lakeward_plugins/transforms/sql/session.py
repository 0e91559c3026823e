"""A DuckDB in memory that can reach nothing but the rows that it is given.

It has no files, no network, no extensions and no settings that a query could change; `statement` looks at queries before they come
here, and this holds when something gets past it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
from attrs import frozen

TABLE = "batch"
CLOSED = {
    "enable_external_access": "false",  # files, network, ATTACH, COPY, LOAD
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",  # or a table's name could mean a variable of this program
    "temp_directory": "",  # a query that outgrows its memory fails; it does not fill the disk
    "threads": "1",
}
LAST = ("SET TimeZone = 'UTC'", "SET enable_progress_bar = false", "SET lock_configuration = true")
OF_ROWS = (duckdb.DataError, duckdb.InvalidInputException)
"""What DuckDB raises when some row has a value that a query cannot take: a cast, a number out of range, text that is no date."""


@frozen
class Function:
    """One meaning of a function's name."""

    kind: str
    """scalar, aggregate, macro, table, table_macro, pragma."""
    pure: bool | None
    """True when it depends on its arguments alone; None when it may, and its definition must tell."""
    definition: str | None


class Session:
    """One connection with all doors shut."""

    def __init__(self, max_mb: float) -> None:
        self._connection = duckdb.connect(":memory:", config={**CLOSED, "memory_limit": f"{max_mb}MB"})
        for setting in LAST:
            self._connection.execute(setting).fetchall()
        self._functions: dict[str, list[Function]] = {}

    def answer(self, query: str, rows: pa.RecordBatch, *, twice: bool) -> pa.RecordBatch:
        """The result of a query over the rows, which are the table `batch`. Raises `duckdb.Error`.

        A query that may read them `twice` gets a copy, as older versions read a batch of Arrow once only.
        """
        self._connection.register("came" if twice else TABLE, rows)
        try:
            if twice:
                self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {TABLE} AS FROM came").fetchall()
            table = self._connection.sql(query).to_arrow_table()
        finally:
            if twice:
                self._connection.execute(f"DROP TABLE IF EXISTS {TABLE}").fetchall()
            self._connection.unregister("came" if twice else TABLE)
        columns: list[Any] = [
            pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type) for column in table.columns
        ]
        return pa.RecordBatch.from_arrays(columns, schema=table.schema)

    def syntax(self, query: str) -> dict[str, Any]:
        """The syntax tree of a query; `error` and `error_message` say when it has none."""
        found = self._connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [query]).fetchall()
        tree: dict[str, Any] = json.loads(found[0][0])
        return tree

    def functions(self) -> Mapping[str, Sequence[Function]]:
        """What each name can mean in a call."""
        if not self._functions:
            listed = "SELECT function_name, function_type, stability, macro_definition FROM duckdb_functions()"
            for name, kind, stability, body in self._connection.execute(listed).fetchall():
                pure = None if stability is None else stability == "CONSISTENT"
                self._functions.setdefault(name, []).append(Function(kind, pure, body))
        return self._functions

    def views(self) -> list[str]:
        """What a table can be called that is not the rows: DuckDB's own views."""
        return [name for (name,) in self._connection.execute("SELECT view_name FROM duckdb_views()").fetchall()]


@cache
def session(max_mb: float) -> Session:
    """The one of this process, for all transforms: a query leaves nothing behind in it, and transforms run one after the other."""
    return Session(max_mb)


def kind(error: BaseException) -> str:
    """What sort of error it is, without values of rows: `ConversionException`."""
    return type(error).__name__


def sentence(error: BaseException) -> str:
    """What DuckDB says, in one line, without the query, which DuckDB draws below it."""
    said = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", str(error)).partition("\nLINE ")[0]
    return "; ".join(line.strip() for line in said.splitlines() if line.strip())
