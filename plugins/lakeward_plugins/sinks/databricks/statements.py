"""The SQL that takes the rows, and why a second time changes nothing.

copy    COPY INTO remembers in the table which files it has loaded and skips them, even when they are written anew or gone since. The
        name of the file comes from the token and the content of the parcel. Of two that load one file at once, one is refused. Each row
        carries that name: when no row was loaded, the table is asked whether it has them, as a file is also skipped when the table was
        emptied since.
insert  A MERGE that inserts only what the table does not have, by the same name of the parcel in each row. The rows of a parcel come in
        one statement, which takes effect as a whole or not at all; so the table has all of them or none. A plain INSERT would not do:
        when its answer is lost, nobody knows whether it happened.
merge   A MERGE by key, in which the greater revision wins. Rows that are there with the same revision, or a greater one, stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lakeward_plugins.sinks.databricks.names import TableName, literal, quoted
from lakeward_plugins.sinks.databricks.rows import marker
from lakeward_plugins.sinks.databricks.table import TOKEN_COLUMN, Column


def copy_into(table: TableName, columns: Sequence[Column], folder: str, file: str, token: str) -> str:
    """Load one file of a volume, with the token in each row."""
    chosen = f"{_chosen(columns)}, {literal(token)} AS {quoted(TOKEN_COLUMN)}"
    return f"COPY INTO {table.sql} FROM (SELECT {chosen} FROM {literal(folder)}) FILEFORMAT = PARQUET FILES = ({literal(file)})"


def count_of(table: TableName, token: str) -> str:
    """How many rows the table has of a token."""
    return f"SELECT count(*) AS n FROM {table.sql} WHERE {quoted(TOKEN_COLUMN)} = {literal(token)}"


def tokens_between(table: TableName, least: str, beyond: str) -> str:
    """Tokens that the table has rows of; a range, so that files without any are not read."""
    column = quoted(TOKEN_COLUMN)
    return f"SELECT DISTINCT {column} FROM {table.sql} WHERE {column} >= {literal(least)} AND {column} < {literal(beyond)}"


def from_file(columns: Sequence[Column], path: str) -> str:
    """The rows of a file, in the types of the table."""
    return f"SELECT {_chosen(columns)} FROM parquet.{quoted(path)}"


def _chosen(columns: Sequence[Column]) -> str:
    values = ((one, "NULL" if one.empty else quoted(one.name)) for one in columns)
    return ", ".join(f"CAST({value} AS {one.target}) AS {quoted(one.name)}" for one, value in values)


def from_parameters(columns: Sequence[Column], rows: int) -> str:
    """The rows of so many times as many markers as there are columns."""
    names = [quoted(f"c{place}") for place in range(len(columns))]
    chosen = ", ".join(
        f"CAST({marker(one.kind).format(name)} AS {one.target}) AS {quoted(one.name)}" for one, name in zip(columns, names, strict=True)
    )
    row = f"({', '.join('?' * len(columns))})"
    return f"SELECT {chosen} FROM VALUES {', '.join([row] * rows)} AS v({', '.join(names)})"


def insert_once(table: TableName, columns: Sequence[Column], rows: str, token: str) -> str:
    """Insert the rows unless the table has some of this token; it is safe as a name, so it stands in the text."""
    names = [quoted(one.name) for one in columns]
    target = quoted(TOKEN_COLUMN)
    return (
        f"MERGE INTO {table.sql} AS t USING (SELECT *, {literal(token)} AS {target} FROM ({rows})) AS s "
        f"ON t.{target} = s.{target} AND t.{target} = {literal(token)} "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join([*names, target])}) VALUES ({', '.join(f's.{name}' for name in [*names, target])})"
    )


def upsert(table: TableName, columns: Sequence[Column], rows: str, keys: Sequence[str], revision: str) -> str:
    """Insert rows with new keys, and put rows with a greater revision in the place of those that are there."""
    names, newer = [quoted(one.name) for one in columns], quoted(revision)
    changes = ", ".join(f"t.{name} = s.{name}" for name in names)
    latest = f"QUALIFY ROW_NUMBER() OVER (PARTITION BY {', '.join(map(quoted, keys))} ORDER BY {newer} DESC) = 1"
    return (
        f"MERGE INTO {table.sql} AS t USING (SELECT * FROM ({rows}) {latest}) AS s "
        f"ON {' AND '.join(f't.{quoted(key)} = s.{quoted(key)}' for key in keys)} "
        f"WHEN MATCHED AND (t.{newer} IS NULL OR s.{newer} > t.{newer}) THEN UPDATE SET {changes} "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) VALUES ({', '.join(f's.{name}' for name in names)})"
    )


def add_columns(table: TableName, columns: Sequence[Column]) -> str:
    """Those that the table lacks."""
    return f"ALTER TABLE {table.sql} ADD COLUMNS ({', '.join(f'{quoted(one.name)} {one.target}' for one in columns)})"


def newest_rows(table: TableName, count: bool, where: Mapping[str, str], newest: str, limit: int) -> str:
    """How many rows have these texts, or those rows, with the greatest of a column first."""
    conditions = " AND ".join(f"CAST({quoted(column)} AS STRING) = {literal(text)}" for column, text in where.items())
    parts = [
        f"SELECT {'count(*) AS n' if count else '*'} FROM {table.sql}",
        f"WHERE {conditions}" if conditions else "",
        f"ORDER BY {quoted(newest)} DESC NULLS LAST" if newest else "",
        f"LIMIT {limit}" if limit and not count else "",
    ]
    return " ".join(filter(None, parts))
