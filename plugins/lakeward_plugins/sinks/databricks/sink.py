"""The options, and what the kernel calls."""

from __future__ import annotations

import io
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from attrs import define, field

from lakeward import Encoding, OptionError, Parcel, Receipt, Refused, option
from lakeward.errors import LakewardError
from lakeward.secrets import Secret, SecretReference
from lakeward_plugins.sinks.databricks import statements
from lakeward_plugins.sinks.databricks.names import TableName, volume_path
from lakeward_plugins.sinks.databricks.reading import require_reading
from lakeward_plugins.sinks.databricks.rows import as_file, as_parameters, require_values
from lakeward_plugins.sinks.databricks.table import TOKEN_COLUMN, Column, create_table, fitted, lacking, stored
from lakeward_plugins.sinks.databricks.troubles import NO_TABLE, ODD, error_class, is_gone, is_lost, short, sorted_out
from lakeward_plugins.sinks.databricks.warehouse import Warehouse

log = logging.getLogger("lakeward.databricks")
HOST = re.compile(r"(?:https://)?([A-Za-z0-9][A-Za-z0-9.-]*(?::\d{1,5})?)/?")
LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|localhost)(?::\d{1,5})?/?")
HTTP_PATH = re.compile(r"/?[A-Za-z0-9][\w./-]*(?:\?o=\d+)?")
TIDIED = 10  # files of earlier parcels that are taken away after each delivery
Mode = Literal["copy", "insert", "merge"]


@define
class DatabricksSink:
    """Rows into a table of a Databricks SQL warehouse.

    Mode `copy` puts the spooled Parquet file into a volume and loads it with COPY INTO. Mode `insert` needs no volume and is for small
    batches: each is one statement with at most 255 values, larger ones are halved until they fit. Mode `merge` updates rows that are
    there, for windows and alerts: of two with the same `upsert_by`, the one with the greater `revision` stays.
    """

    host: str = option(help="Of the workspace, such as adb-1.azuredatabricks.net.")
    http_path: str = option(help="Of the SQL warehouse, such as /sql/1.0/warehouses/0123456789abcdef.")
    table: str = option(help="Name of the table, `catalog.schema.name`.")
    token: Secret = option(SecretReference("env", "DATABRICKS_TOKEN"), help="Access token; left out, ${env:DATABRICKS_TOKEN}.")
    mode: Mode = option("copy", help="COPY INTO from a volume, a statement with the values in it, or updates by key.")
    volume: str = option("", help="`catalog.schema.volume`, or /Volumes/catalog/schema/volume/folder: where files wait; needed by `copy`.")
    upsert_by: list[str] = option(factory=list, help="Mode `merge`: the columns that say which row is meant, such as window_id.")
    revision: str = option("", help="Mode `merge`: the column whose greater value wins, such as revision.")
    create: bool = option(False, help="Make the table when it is not there.")
    schema_change: Literal["refuse", "evolve"] = option(
        "refuse", help="When columns differ: refuse, or add new ones and leave lacking ones NULL."
    )
    compression: Literal["snappy", "zstd", "gzip", "none"] = option("snappy", help="How pages of the files are compressed.")
    row_key: bool = option(False, help="Keep the row key, the column `_row`.")
    inserted_at: str = option("", help="Add a column of this name, such as databricks_inserted_at, with the time of spooling.")
    timeout: timedelta = option(timedelta(seconds=60), help="Longest wait for an answer.", minimum=0.1)
    statement_timeout: timedelta = option(timedelta(minutes=10), help="Longest time that the warehouse works on a statement.", minimum=1)
    _table: TableName = field(init=False, repr=False, eq=False)
    _folder: str = field(init=False, default="", repr=False, eq=False)
    _warehouse: Warehouse = field(init=False, repr=False, eq=False)
    _known: tuple[pa.Schema, list[Column]] | None = field(init=False, default=None, repr=False, eq=False)
    """Rows that were looked at last, and how they fit."""
    _uploaded: str = field(init=False, default="", repr=False, eq=False)
    """The file that is in the volume for sure, so that an attempt that failed later need not send it again."""
    _left: list[str] | None = field(init=False, default=None, repr=False, eq=False)
    """Files in the volume that nobody needs any more; None when it must be looked which these are."""

    def __attrs_post_init__(self) -> None:
        self._table = TableName.parse(self.table)
        self._folder = volume_path(self.volume) if self.volume else ""
        local = LOOPBACK.fullmatch(self.host)
        host = HOST.fullmatch(self.host)
        if not local and not host:  # nor a user, a password or a path in it: messages show it
            raise OptionError("host", "is not the name of a workspace, such as adb-1.azuredatabricks.net")
        if not HTTP_PATH.fullmatch(self.http_path):
            raise OptionError("http_path", f"{self.http_path!r} is not a path such as /sql/1.0/warehouses/0123456789abcdef")
        if not isinstance(self.token, Secret):
            raise OptionError("token", "give the access token as ${env:NAME} or ${file:/path}, or set the variable DATABRICKS_TOKEN")
        self._require_mode()
        address = self.host.rstrip("/") if local or not host else f"https://{host[1]}"
        waits = (self.timeout.total_seconds(), self.statement_timeout.total_seconds())
        self._warehouse = Warehouse(address, self.http_path, self.token, *waits)

    def _require_mode(self) -> None:
        if self.mode == "copy" and not self._folder:
            raise OptionError("volume", "mode copy needs a volume for its files; name one, or take `mode: insert` for small batches")
        if self.mode == "insert" and self._folder:
            raise OptionError("volume", "mode insert uses no volume; leave it out, or take `mode: copy`")
        if self.mode == "merge":
            if not self.upsert_by:
                raise OptionError("upsert_by", "mode merge needs the columns that say which row is meant, such as [window_id]")
            if not self.revision:  # without one, an old statement that was lost on its way could undo a newer one
                raise OptionError("revision", "mode merge needs the column that says which of two rows is newer, such as revision")
        elif self.upsert_by or self.revision:
            raise OptionError("upsert_by" if self.upsert_by else "revision", "is for `mode: merge` only")

    @property
    def encoding(self) -> Encoding:
        """Files as the options say."""
        return Encoding(self.compression, self.row_key, self.inserted_at)

    # -- before the first row ------------------------------------------------------------------------------------------

    def ddl(self, schema: pa.Schema) -> str:
        """The statement that makes the table for these rows."""
        return create_table(self._table, self._columns(schema), self._extra)

    def probe(self, schema: pa.Schema) -> str:
        """Whether the rows would fit into the table. Writes nothing, so what is missing to write only the first parcel may show."""
        columns = self._columns(schema)
        with self._sorted_errors():
            theirs = self._described()
            if theirs is None and not self.create:
                raise OptionError(
                    "table", f"{self._table} is not there; make it (`lakeward ddl` prints the statement), or set `create: true`"
                )
            if theirs is not None:
                fitted(columns, self._without_extra(theirs), self._table, self.schema_change == "evolve")
            if self._folder:
                self._listed()
        what = {
            "copy": f"COPY INTO, by files in {self._folder},",
            "insert": "insert into",
            "merge": f"merge by {', '.join(self.upsert_by)} into",
        }
        return f"would {what[self.mode]} the table {self._table}{'' if theirs is not None else ', and make it'} ({len(columns)} columns)"

    def query(self, sql: str, *, limit: int | None = None) -> pa.Table:
        """The first rows of a query. Refused unless it only reads."""
        require_reading(sql)
        with self._sorted_errors():
            return self._warehouse.table(sql, limit=limit)

    def endpoints(self) -> list[str]:
        """The workspace."""
        return [self._warehouse.address]

    def try_out(self) -> str:
        """Put a file into the volume and remove it; else insert no row, which needs the same permission as to insert one."""
        with self._sorted_errors():
            if self._folder:
                path = f"{self._folder}/lakeward-doctor-{secrets.token_hex(4)}"
                self._warehouse.upload(path, io.BytesIO(b"trial"))
                self._warehouse.remove(path)
            if self._described() is None:
                return f"{f'wrote and removed a file in {self._folder}; ' if self._folder else ''}the table is not there yet"
            self._warehouse.run(f"INSERT INTO {self._table.sql} SELECT * FROM {self._table.sql} WHERE false")
        return f"{f'wrote and removed a file in {self._folder}, ' if self._folder else ''}inserted no row into {self._table}"

    def phrase(self, *, count: bool, where: Mapping[str, str], newest: str, limit: int) -> str:
        """A query for the number of rows, or for the newest."""
        return statements.newest_rows(self._table, count, where, newest, limit)

    def facts(self) -> dict[str, str]:
        """Which table it is."""
        return {"place": str(self._table)}

    # -- delivery ------------------------------------------------------------------------------------------------------

    def deliver(self, parcel: Parcel) -> Receipt:
        """Make the rows a part of the table, unless they are."""
        with self._sorted_errors():
            try:
                columns = self._fit(pq.read_schema(parcel.path))
            except OptionError as error:  # it was right when the run began
                raise Refused(str(error)) from error
            if self.mode == "copy":
                return self._copy(parcel, columns)
            return self._merge(parcel, columns) if self.mode == "merge" else self._insert(parcel, columns)

    def _copy(self, parcel: Parcel, columns: list[Column]) -> Receipt:
        file = self._staged(parcel, columns)
        answer = self._warehouse.run(statements.copy_into(self._table, columns, self._folder, file))
        rows = self._all_or_none(int(answer.get("num_inserted_rows", -1)), parcel, file)
        self._tidy(file)
        return Receipt(str(self._table), {"file": file, "already_there": rows == 0})

    def _insert(self, parcel: Parcel, columns: list[Column]) -> Receipt:
        rows, token = as_parameters(parcel, columns, 0), _name(parcel)
        source = statements.from_parameters(columns, len(rows))
        values = [text for row in rows for text in row]
        answer = self._warehouse.run(statements.insert_once(self._table, columns, source, token), values)
        there = self._all_or_none(int(answer.get("num_inserted_rows", -1)), parcel, token) == 0
        return Receipt(str(self._table), {"token": token, "already_there": there})

    def _all_or_none(self, inserted: int, parcel: Parcel, name: str) -> int:
        if inserted not in (0, parcel.rows):
            told = f"the warehouse says that it took {inserted} of {parcel.rows} rows of {name}"
            raise Refused(f"{self._table}: {told}; look into its query history, and compare the table with the source")
        return inserted

    def _merge(self, parcel: Parcel, columns: list[Column]) -> Receipt:
        require_values(parcel, list(dict.fromkeys((*self.upsert_by, self.revision))))
        values: list[str | None] = []
        if self._folder:
            file = self._staged(parcel, columns)
            source = statements.from_file(columns, f"{self._folder}/{file}")
        else:
            rows = as_parameters(parcel, columns, 0)
            source, values = statements.from_parameters(columns, len(rows)), [text for row in rows for text in row]
        answer = self._warehouse.run(statements.upsert(self._table, columns, source, self.upsert_by, self.revision), values)
        if self._folder:
            self._tidy(file)
        counts = {word: int(answer.get(f"num_{word}_rows", 0)) for word in ("inserted", "updated")}
        return Receipt(str(self._table), {**counts, "superseded": parcel.rows - sum(counts.values())})

    def close(self) -> None:
        """Give the connection back."""
        self._warehouse.close()

    # -- files in the volume -------------------------------------------------------------------------------------------

    def _staged(self, parcel: Parcel, columns: list[Column]) -> str:
        """Put the file of the parcel into the volume; its name."""
        file = f"{_name(parcel)}.parquet"
        if self._left is None:
            self._left = self._left_behind(parcel)
        if file != self._uploaded:
            with as_file(parcel, columns) as content:
                self._warehouse.upload(f"{self._folder}/{file}", content)
            self._uploaded = file
        return file

    def _left_behind(self, parcel: Parcel) -> list[str]:
        """Files that were not taken away, such as by a killed run. Parcels come in order, so those before this one have been loaded."""
        token = parcel.token
        ours = re.compile(re.escape(f"{token.pipeline}-{token.sink}-{token.life}-{token.epoch:04d}-") + r"(\d{10})[-.].*\.parquet")
        found = ((name, ours.fullmatch(name)) for name in self._listed())
        return [name for name, match in found if match and int(match[1]) < token.sequence]

    def _listed(self) -> list[str]:
        """Names of the files in the folder; none when it is not there, as the first file makes it."""
        try:
            return self._warehouse.listed(self._folder)
        except ODD as error:
            if is_gone(error):
                return []
            raise

    def _tidy(self, file: str) -> None:
        """Take away what is loaded. The rows are there: a file that stays for now must not make this delivery fail."""
        self._uploaded, names = "", [file, *(self._left or ())]
        for name in names[: TIDIED + 1]:
            try:
                self._warehouse.remove(f"{self._folder}/{name}")
            except ODD as error:
                if is_gone(error):
                    continue
                log.info("%s: %s stays in the volume for now: %s", self._table, name, short(error))
                self._left = None  # the next delivery looks what is there
                return
        self._left = names[TIDIED + 1 :]

    # -- the table -----------------------------------------------------------------------------------------------------

    @property
    def _extra(self) -> dict[str, str]:
        """Columns of our own."""
        return {TOKEN_COLUMN: "STRING"} if self.mode == "insert" else {}

    def _columns(self, schema: pa.Schema) -> list[Column]:
        columns = stored(schema, self.row_key, self.inserted_at)
        if self._extra and any(one.name.lower() == TOKEN_COLUMN for one in columns):
            raise Refused(f"column {TOKEN_COLUMN!r}: mode insert keeps its own under this name; rename it with schematize")
        names = [one.name for one in columns]
        for option_name, wanted in (("upsert_by", self.upsert_by), ("revision", [self.revision] if self.revision else [])):
            if lost := [name for name in wanted if name not in names]:
                raise OptionError(option_name, f"the rows have no column {lost[0]!r}; their columns are {', '.join(names)}")
        return columns

    def _fit(self, schema: pa.Schema) -> list[Column]:
        """The columns of these rows in the types of the table, which is made or widened if the options say so."""
        if self._known and self._known[0].equals(schema):
            return self._known[1]
        columns, evolve = self._columns(schema), self.schema_change == "evolve"
        theirs = self._described()
        if theirs is None and self.create:
            self._warehouse.run(create_table(self._table, columns, self._extra))
            theirs = self._described()
        if theirs is None:
            raise Refused(f"{self._table} is not there; make it (`lakeward ddl` prints the statement), or set `create: true`")
        if evolve and (new := lacking(columns, theirs)):
            log.warning("%s: adding the columns %s", self._table, ", ".join(one.name for one in new))
            self._warehouse.run(statements.add_columns(self._table, new))
            theirs = self._described() or {}
        found = fitted(columns, self._without_extra(theirs), self._table, evolve)
        self._known = schema, found
        return found

    def _described(self) -> dict[str, str] | None:
        """Names and types of the columns of the table; None when it is not there."""
        try:
            rows = self._warehouse.table(f"DESCRIBE TABLE {self._table.sql}").to_pylist()
        except ODD as error:
            if error_class(error) == NO_TABLE:
                return None
            raise
        found = {}
        for row in rows:
            if not row["col_name"] or row["col_name"].startswith("# "):  # how it is partitioned comes after the columns
                break
            found[row["col_name"]] = row["data_type"]
        return found

    def _without_extra(self, theirs: dict[str, str]) -> dict[str, str]:
        if lost := [f"{name} {kind}" for name, kind in self._extra.items() if name not in theirs]:
            todo = f"ALTER TABLE {self._table.sql} ADD COLUMNS ({', '.join(lost)})"
            raise Refused(f"{self._table}: mode insert needs a column of its own, by which it knows what it has sent; run {todo}")
        return {name: kind for name, kind in theirs.items() if name not in self._extra}

    @contextmanager
    def _sorted_errors(self) -> Iterator[None]:
        try:
            yield
        except LakewardError as error:
            if isinstance(error, Refused):
                self._known = None  # somebody may mend the table meanwhile
            raise
        except ODD as error:
            problem = sorted_out(error, str(self._table))
            if error_class(error):
                self._known, self._uploaded = None, ""  # the table or the file may not be what they were
            if is_lost(error) or isinstance(problem, Refused):
                self._warehouse.drop()
            raise problem from None  # its cause holds what was sent


def _name(parcel: Parcel) -> str:
    """Of the parcel, among all that any machine sends into this table, also one with a copy of our state directory."""
    return f"{parcel.token.pipeline}-{parcel.token.name}-{parcel.sha256[:16]}"
