"""COPY INTO a table FROM files of a volume. A file that a table has loaded is skipped for ever, changed or not, as the manual says.

Databricks keeps what it has loaded beside the log of the table: TRUNCATE and DELETE leave it, DROP takes it away.
"""

from __future__ import annotations

import re

import duckdb
import pyarrow as pa
import sqlglot

from warehouse.dialect import Table, parse, tables
from warehouse.rules import Grants, SqlError
from warehouse.volumes import LITERAL, Volumes, text_of

STATEMENT = re.compile(
    rf"COPY\s+INTO\s+(?P<table>\S+)\s+FROM\s+(?:\(\s*SELECT\s+(?P<select>.+?)\s+FROM\s+{LITERAL}\s*\)|{LITERAL})\s+"
    rf"FILEFORMAT\s*=\s*(?P<format>\w+)(?:\s+FILES\s*=\s*\((?P<files>[^)]*)\))?"
    r"(?P<force>\s+COPY_OPTIONS\s*\(\s*'force'\s*=\s*'true'\s*\))?\s*",
    re.IGNORECASE | re.DOTALL,
)
MEMORY = "CREATE TABLE IF NOT EXISTS lake.copy_into.loaded (table_name VARCHAR, path VARCHAR, PRIMARY KEY (table_name, path))"


def copy_into(
    connection: duckdb.DuckDBPyConnection, sql: str, volumes: Volumes, grants: Grants, place: tuple[str, str], lenient: bool
) -> pa.Table:
    """Load what is new, all of it or nothing, and remember it in the same transaction. When lenient, what is not there is no error."""
    match = STATEMENT.fullmatch(sql)
    if not match or match["format"].upper() != "PARQUET":
        raise SqlError("PARSE_SYNTAX_ERROR", "Syntax error in COPY INTO, or a form that this stand-in does not know.", "42601")
    target: Table = tables(parse(f"SELECT * FROM {match['table']}"), *place)[0]
    grants.require("MODIFY", "Table", target.plain)
    folder = text_of(next(filter(None, (match[3], match[4])))).rstrip("/")
    names = [text_of(name) for name in re.findall(LITERAL, match["files"] or "")]
    paths = [f"{folder}/{name}" for name in names] or [folder]
    columns = "*"
    if match["select"]:
        columns = sqlglot.transpile(f"SELECT {match['select']}", read="databricks", write="duckdb")[0].removeprefix("SELECT ")
    files = {path: volumes.path(path, "READ VOLUME") for path in paths}
    connection.execute(f"SELECT 1 FROM {target.quoted} LIMIT 0")
    loaded = 0
    for path, file in files.items():
        known = connection.execute("SELECT 1 FROM lake.copy_into.loaded WHERE table_name = ? AND path = ?", [target.plain, path]).fetchone()
        if known and not match["force"]:
            continue
        if not file.is_file():
            if lenient:
                continue
            raise SqlError("PATH_NOT_FOUND", f"Path does not exist: {path}.", "42K03")
        source = f"SELECT {columns} FROM read_parquet({_quoted(str(file))})"
        row = connection.execute(f"INSERT INTO {target.quoted} BY NAME {source}").fetchone()
        connection.execute("INSERT OR IGNORE INTO lake.copy_into.loaded VALUES (?, ?)", [target.plain, path])
        loaded += row[0] if row else 0
    return pa.table({"num_affected_rows": [loaded], "num_inserted_rows": [loaded], "num_skipped_corrupt_files": [0]})


def forget(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """A table that is dropped takes its memory with it."""
    connection.execute("DELETE FROM lake.copy_into.loaded WHERE table_name = ?", [table])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
