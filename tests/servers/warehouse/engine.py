"""One statement: who may run it, what it does, and how many rows it changed."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from attrs import define, field, frozen
from sqlglot import exp

from warehouse.copying import MEMORY, copy_into, forget
from warehouse.dialect import FILE, for_duckdb, parse, tables, told, type_name
from warehouse.rules import Grants, SqlError
from warehouse.volumes import STATEMENT, Volumes

CATALOG, SCHEMA = "lake", "default"
DESCRIBE = re.compile(r"DESC(?:RIBE)?\s+(?:TABLE\s+)?(\S+)", re.IGNORECASE)
VOLUME = re.compile(r"CREATE\s+VOLUME\s+(IF\s+NOT\s+EXISTS\s+)?([\w.`]+)", re.IGNORECASE)
COMMENT = re.compile(r"\A(?:\s|--[^\n]*\n|/\*.*?\*/)+", re.DOTALL)
NOTHING = pa.table({})


@frozen
class Answer:
    """Rows, how many were changed, and whether the client is to move a file now."""

    rows: pa.Table
    changed: int | None = None
    staging: bool = False


@define
class Engine:
    """One catalog in one DuckDB file, and volumes beside it. Writers wait for each other."""

    folder: Path
    grants: Grants = field(factory=Grants)
    volumes: Volumes = field(init=False)
    conflicts: int = field(init=False, default=0)
    """So many writing statements from now on lose against another writer."""
    lenient: bool = field(init=False, default=False)
    """Files that are not there are passed over, as a setting of Spark has it (ignoreMissingFiles)."""
    statements: list[str] = field(init=False, factory=list)
    _connection: duckdb.DuckDBPyConnection = field(init=False)
    _writing: threading.RLock = field(init=False, factory=threading.RLock)

    def __attrs_post_init__(self) -> None:
        self.volumes = Volumes(self.folder / "Volumes", self.grants)
        self._connection = duckdb.connect(str(self.folder / "lake.duckdb"), config={"autoinstall_known_extensions": False})
        self._connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{SCHEMA}"; CREATE SCHEMA IF NOT EXISTS copy_into')
        self._connection.execute(MEMORY)

    def session(self, catalog: str, schema: str) -> duckdb.DuckDBPyConnection:
        """A connection of its own, in this schema."""
        connection = self._connection.cursor()
        connection.execute("SET TimeZone='UTC'")
        connection.execute(f'USE "{catalog or CATALOG}"."{schema or SCHEMA}"')
        return connection

    def run(self, connection: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any], base: str) -> Answer:
        """Run it. Raises SqlError."""
        sql = COMMENT.sub("", sql).strip().rstrip(";").strip()
        self.statements.append(sql)
        word = sql.split(None, 1)[0].upper() if sql else ""
        try:
            if word in STATEMENT:
                return Answer(*self.volumes.run(sql, base)[:1], staging=word != "LIST")
            if match := VOLUME.fullmatch(sql):
                self.volumes.create(match[2].replace("`", ""), bool(match[1]))
                return Answer(NOTHING)
            if match := DESCRIBE.fullmatch(sql):
                return Answer(self._describe(connection, match[1]))
            if word in ("SELECT", "WITH", "SHOW"):
                return self._read(connection, sql, values)
            with self._writing:
                return self._write(connection, sql, word, values)
        except duckdb.Error as error:
            raise told(error) from error

    def _place(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, str]:
        catalog, schema = connection.execute("SELECT current_catalog(), current_schema()").fetchone() or ("", "")
        return str(catalog), str(schema)

    def _describe(self, connection: duckdb.DuckDBPyConnection, name: str) -> pa.Table:
        table = tables(parse(f"SELECT * FROM {name}"), *self._place(connection))[0]
        self.grants.require("SELECT", "Table", table.plain)
        found = connection.execute(f"DESCRIBE {table.quoted}").fetchall()
        texts = [[row[0] for row in found], [type_name(row[1]) for row in found], [None] * len(found)]
        return pa.table([pa.array(one, pa.string()) for one in texts], names=["col_name", "data_type", "comment"])

    def _read(self, connection: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any]) -> Answer:
        if match := re.fullmatch(r"SHOW\s+TABLES\s+IN\s+(\w+)\.(\w+)", sql, re.IGNORECASE):
            query = "SELECT schema_name AS database, table_name AS tableName, false AS isTemporary FROM duckdb_tables() WHERE "
            return Answer(connection.execute(f"{query} database_name = ? AND schema_name = ?", [match[1], match[2]]).to_arrow_table())
        files: list[str] = []
        tree = parse(self._with_files(sql, files))
        if not isinstance(tree, exp.Query):
            raise SqlError("PARSE_SYNTAX_ERROR", "Syntax error: a query is expected.", "42601")
        for table in tables(tree, *self._place(connection)):
            self.grants.require("SELECT", "Table", table.plain)
        return Answer(connection.execute(_filled(for_duckdb(tree)[0], files), list(values)).to_arrow_table())

    def _with_files(self, sql: str, files: list[str]) -> str:
        """Files of volumes become functions, which are filled in when the statement has been translated."""

        def name(match: re.Match[str]) -> str:
            path = self.volumes.path(match[1], "READ VOLUME")
            if not path.is_file():
                raise SqlError("PATH_NOT_FOUND", f"Path does not exist: {match[1]}.", "42K03")
            files.append(str(path))
            return f"staged_file({len(files) - 1})"

        return FILE.sub(name, sql)

    def _write(self, connection: duckdb.DuckDBPyConnection, sql: str, word: str, values: Sequence[Any]) -> Answer:
        if self.conflicts and word in ("COPY", "MERGE", "INSERT", "UPDATE", "DELETE"):
            self.conflicts -= 1
            raise SqlError("DELTA_CONCURRENT_APPEND", "Files were added by a concurrent update. Please try the operation again.", "2D521")
        connection.execute("BEGIN")
        try:
            answer = self._written(connection, sql, word, values)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return answer

    def _written(self, connection: duckdb.DuckDBPyConnection, sql: str, word: str, values: Sequence[Any]) -> Answer:
        place = self._place(connection)
        if word == "COPY":
            rows = copy_into(connection, sql, self.volumes, self.grants, place, self.lenient)
            return Answer(rows, rows["num_affected_rows"][0].as_py())
        files: list[str] = []
        tree = parse(self._with_files(sql, files))
        self._require(tree, place)
        if isinstance(tree, exp.Merge):
            return _merge(connection, tree, files, list(values))
        for statement in for_duckdb(tree):
            done = connection.execute(_filled(statement, files), list(values)).fetchone()
        if isinstance(tree, exp.Drop):
            for table in tables(tree, *place):
                forget(connection, table.plain)
        if isinstance(tree, (exp.Insert, exp.Update, exp.Delete)):
            changed = int(done[0]) if done else 0
            return Answer(pa.table({"num_affected_rows": [changed], "num_inserted_rows": [changed]}), changed)
        return Answer(NOTHING)

    def _require(self, tree: exp.Expression, place: tuple[str, str]) -> None:
        first, *others = tables(tree, *place) or [None]
        if first is None:
            return
        if isinstance(tree, exp.Create):
            self.grants.require("CREATE TABLE", "Schema", f"{first.catalog}.{first.schema}")
        elif not isinstance(tree, exp.Drop):
            self.grants.require("MODIFY", "Table", first.plain)
            for table in [first, *others] if isinstance(tree, exp.Merge) else others:
                self.grants.require("SELECT", "Table", table.plain)


def _merge(connection: duckdb.DuckDBPyConnection, tree: exp.Merge, files: list[str], values: list[Any]) -> Answer:
    """As Delta does it: a row of the table that two rows of the source would update is an error, not luck."""
    if any(when.args.get("matched") for when in tree.find_all(exp.When)):
        source, target, on = (part.sql("duckdb") for part in (tree.args["using"], tree.this, tree.args["on"]))
        pairs = _filled(f"SELECT 1 FROM {source} JOIN {target} ON {on} GROUP BY t.rowid HAVING count(*) > 1 LIMIT 1", files)
        if connection.execute(pairs, values[: pairs.count("?")]).fetchone():
            text = "Cannot perform Merge as multiple source rows matched and attempted to modify the same target row."
            raise SqlError("DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE", text, "21506")
    done = connection.execute(f"{_filled(for_duckdb(tree)[0], files)} RETURNING merge_action", values).fetchall()
    counts = {word: sum(row[0] == word for row in done) for word in ("UPDATE", "DELETE", "INSERT")}
    named = {f"num_{word.lower()}{'d' if word.endswith('E') else 'ed'}_rows": [count] for word, count in counts.items()}
    return Answer(pa.table({"num_affected_rows": [len(done)], **named}), len(done))


def _filled(sql: str, files: list[str]) -> str:
    for number, path in enumerate(files):
        sql = re.sub(rf"STAGED_FILE\({number}\)", lambda _, path=path: "read_parquet('" + path.replace("'", "''") + "')", sql)
    return sql
