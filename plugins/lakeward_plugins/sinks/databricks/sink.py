"""The options, and what the kernel calls."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from attrs import define, field

from lakeward import Encoding, OptionError, Parcel, Receipt, Refused, Retry, option
from lakeward.errors import LakewardError
from lakeward.secrets import Secret, SecretReference
from lakeward_plugins.sinks.databricks import statements
from lakeward_plugins.sinks.databricks.names import TableName, volume_path
from lakeward_plugins.sinks.databricks.reading import require_reading
from lakeward_plugins.sinks.databricks.rows import as_file, as_parameters, first_of_equal
from lakeward_plugins.sinks.databricks.sent import by_parcel, clash, later_names, name_of, not_ours, not_there, settled
from lakeward_plugins.sinks.databricks.table import TOKEN_COLUMN, Column, create_table, fitted, lacking, stored
from lakeward_plugins.sinks.databricks.troubles import NO_TABLE, ODD, error_class, is_lost, sorted_out
from lakeward_plugins.sinks.databricks.volume import Folder
from lakeward_plugins.sinks.databricks.warehouse import Warehouse

log = logging.getLogger("lakeward.databricks")
HOST = re.compile(r"(?:https://)?([A-Za-z0-9][A-Za-z0-9.-]*(?::\d{1,5})?)/?")
LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|localhost)(?::\d{1,5})?/?")
HTTP_PATH = re.compile(r"/?[A-Za-z0-9][\w./-]*(?:\?o=\d+)?")
Mode = Literal["copy", "insert", "merge"]


@define
class DatabricksSink:
    """Rows into a table of a Databricks SQL warehouse.

    Mode `copy` puts the spooled Parquet file into a volume and loads it with COPY INTO. Mode `insert` needs no volume and is for small
    batches: each is one statement with at most 255 values, larger ones are halved until they fit. Both keep the name of the parcel with
    each row, in the column `lakeward_token`. Mode `merge` updates rows that are there, for windows and alerts: of two with the same
    `upsert_by`, the one with the greater `revision` stays; of equal ones, the one that was there first.
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
    _warehouse: Warehouse = field(init=False, repr=False, eq=False)
    _folder: Folder | None = field(init=False, default=None, repr=False, eq=False)
    """Where files wait; None without a volume."""
    _known: tuple[pa.Schema, list[Column]] | None = field(init=False, default=None, repr=False, eq=False)
    """Rows that were looked at last, and how they fit."""
    _sent: dict[str, Mapping[str, set[str]]] = field(init=False, factory=dict, repr=False, eq=False)
    """For each epoch that was asked for: names of its first parcel in this run and of later ones that the table has, by whole parcel."""

    def __attrs_post_init__(self) -> None:
        self._table = TableName.parse(self.table)
        folder = volume_path(self.volume) if self.volume else ""
        local = LOOPBACK.fullmatch(self.host)
        host = HOST.fullmatch(self.host)
        if not local and not host:  # nor a user, a password or a path in it: messages show it
            raise OptionError("host", "is not the name of a workspace, such as adb-1.azuredatabricks.net")
        if not HTTP_PATH.fullmatch(self.http_path):
            raise OptionError("http_path", f"{self.http_path!r} is not a path such as /sql/1.0/warehouses/0123456789abcdef")
        if not isinstance(self.token, Secret):
            raise OptionError("token", "give the access token as ${env:NAME} or ${file:/path}, or set the variable DATABRICKS_TOKEN")
        self._require_mode(folder)
        address = self.host.rstrip("/") if local or not host else f"https://{host[1]}"
        waits = (self.timeout.total_seconds(), self.statement_timeout.total_seconds())
        self._warehouse = Warehouse(address, self.http_path, self.token, *waits)
        self._folder = Folder(folder, self._warehouse) if folder else None

    def _require_mode(self, folder: str) -> None:
        if self.mode == "copy" and not folder:
            raise OptionError("volume", "mode copy needs a volume for its files; name one, or take `mode: insert` for small batches")
        if self.mode == "insert" and folder:
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
        return create_table(self._table, [*self._columns(schema), *self._extra])

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
                self._folder.listed()
        what = {
            "copy": f"COPY INTO, by files in {self._folder and self._folder.path},",
            "insert": "insert into",
            "merge": f"merge by {', '.join(self.upsert_by)} into",
        }
        return f"would {what[self.mode]} the table {self._table}{'' if theirs is not None else ', and make it'} ({len(columns)} columns)"

    def query(self, sql: str, *, limit: int | None = None) -> pa.Table:
        """The first rows of a query. Refused unless it only reads."""
        require_reading(sql)
        with self._sorted_errors(makes=False):
            return self._warehouse.table(sql, limit=limit)

    def endpoints(self) -> list[str]:
        """The workspace."""
        return [self._warehouse.address]

    def try_out(self) -> str:
        """Put a file into the volume and remove it, and insert no row, which needs the same permission as to insert one."""
        done = ""
        with self._sorted_errors():
            if self._folder:
                self._folder.try_out()
                done = f"wrote and removed a file in {self._folder.path}, "
            if self._described() is None:
                return f"{done}the table is not there yet"
            self._warehouse.run(f"INSERT INTO {self._table.sql} SELECT * FROM {self._table.sql} WHERE false")
        return f"{done}inserted no row into {self._table}"

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
            if self.mode == "merge":
                return self._merge(parcel, columns)
            if self._has_ours(parcel) and self._count(name := name_of(parcel)) >= parcel.rows:
                if self._folder:
                    self._folder.tidy(f"{name}.parquet")
                return Receipt(str(self._table), {"token": name, "already_there": True})  # `mode` or `volume` may have been others then
            return self._copy(parcel, columns, self._folder) if self._folder else self._insert(parcel, columns)

    def _copy(self, parcel: Parcel, columns: list[Column], folder: Folder) -> Receipt:
        name = name_of(parcel)
        file = f"{name}.parquet"
        folder.stage(file, parcel.token, lambda: as_file(parcel, columns))
        answer = self._warehouse.run(statements.copy_into(self._table, columns, folder.path, file, name))
        there = self._all_or_none(answer, parcel, file) == 0
        if there:
            self._require_loaded(parcel, file, folder)
        folder.tidy(file)
        return Receipt(str(self._table), {"file": file, "already_there": there})

    def _insert(self, parcel: Parcel, columns: list[Column]) -> Receipt:
        rows, token = as_parameters(parcel, columns), name_of(parcel)
        source = statements.from_parameters(columns, len(rows))
        values = [text for row in rows for text in row]
        answer = self._warehouse.run(statements.insert_once(self._table, columns, source, token), values)
        return Receipt(str(self._table), {"token": token, "already_there": self._all_or_none(answer, parcel, token) == 0})

    def _merge(self, parcel: Parcel, columns: list[Column]) -> Receipt:
        places = first_of_equal(parcel, [*self.upsert_by, self.revision])
        values, file = [], f"{name_of(parcel)}.parquet"
        if self._folder:
            self._folder.stage(file, parcel.token, lambda: as_file(parcel, columns, places))
            source = statements.from_file(columns, f"{self._folder.path}/{file}")
        else:
            rows = as_parameters(parcel, columns, places)
            source, values = statements.from_parameters(columns, len(rows)), [text for row in rows for text in row]
        answer = self._warehouse.run(statements.upsert(self._table, columns, source, self.upsert_by, self.revision), values)
        counts = {word: self._counted(answer, word) for word in ("inserted", "updated")}
        left = parcel.rows - sum(counts.values())
        if self._folder:
            if left:  # superseded, or an emptied file: both change nothing
                self._folder.require(file, parcel.rows if places is None else len(places))
            self._folder.tidy(file)
        return Receipt(str(self._table), {**counts, "superseded": left})

    # -- proofs --------------------------------------------------------------------------------------------------------

    def _counted(self, answer: dict[str, Any], word: str) -> int:
        count = answer.get(f"num_{word}_rows")
        if count is None:
            raise Refused(f"{self._table}: the warehouse does not say how many rows it {word}; look into its query history")
        return int(count)

    def _all_or_none(self, answer: dict[str, Any], parcel: Parcel, name: str) -> int:
        inserted = self._counted(answer, "inserted")
        if inserted not in (0, parcel.rows):
            told = f"the warehouse says that it took {inserted} of {parcel.rows} rows of {name}"
            raise Refused(f"{self._table}: {told}; look into its query history, and compare the table with the source")
        return inserted

    def _require_loaded(self, parcel: Parcel, file: str, folder: Folder) -> None:
        """That COPY INTO took no row may mean that it knows the file, and the table was emptied since; or that the file was not whole."""
        name = name_of(parcel)
        found = self._count(name)
        if found < parcel.rows and not self._count(settled(name)):
            folder.require(file, parcel.rows)
            raise Refused(not_there(self._table, name, found, parcel.rows))

    def _count(self, token: str) -> int:
        return int(self._warehouse.run(statements.count_of(self._table, token))["n"])

    def _has_ours(self, parcel: Parcel) -> bool:
        """Whether the table had rows of this parcel when the run began; Refused when it had others under its token.

        It is asked once, before the first parcel: a state directory does not go back in time while it is in use, nor do options change.
        """
        least, beyond = later_names(parcel.token)
        if beyond not in self._sent:
            found = self._warehouse.table(statements.tokens_between(self._table, least, beyond))
            self._sent[beyond] = by_parcel(map(str, found.column(TOKEN_COLUMN).to_pylist()))
        if other := clash(name_of(parcel), self._sent[beyond]):
            raise Refused(not_ours(self._table, other, least, beyond))
        return any(name_of(parcel) in names for names in self._sent[beyond].values())

    def close(self) -> None:
        """Give the connection back."""
        self._warehouse.close()

    # -- the table -----------------------------------------------------------------------------------------------------

    @property
    def _extra(self) -> list[Column]:
        """Columns of our own."""
        return [] if self.mode == "merge" else [Column(TOKEN_COLUMN, pa.string(), "STRING")]

    def _columns(self, schema: pa.Schema) -> list[Column]:
        columns = stored(schema, self.row_key, self.inserted_at)
        if self._extra and any(one.name.lower() == TOKEN_COLUMN for one in columns):
            raise Refused(f"column {TOKEN_COLUMN!r}: mode {self.mode} keeps its own under this name; rename it with schematize")
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
            self._warehouse.run(create_table(self._table, [*columns, *self._extra]))
            theirs = self._described()
        if theirs is None:
            raise Refused(f"{self._table} is not there; make it (`lakeward ddl` prints the statement), or set `create: true`")
        if evolve and (new := lacking([*columns, *self._extra], theirs)):
            log.warning("%s: adding the columns %s", self._table, ", ".join(one.name for one in new))
            self._warehouse.run(statements.add_columns(self._table, new))
            theirs = self._described() or {}
            if lost := lacking(columns, theirs):  # without it, its values would be left out in silence
                raise Retry(f"{self._table}: the column {lost[0].name!r} was added and is gone again; somebody changes the table")
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
        if self.schema_change == "refuse" and (lost := lacking(self._extra, theirs)):
            todo = f"{statements.add_columns(self._table, lost)}, or set `schema_change: evolve`"
            raise Refused(f"{self._table}: mode {self.mode} needs a column of its own, by which it knows what it has sent; run {todo}")
        ours = {one.name for one in self._extra}
        return {name: kind for name, kind in theirs.items() if name.lower() not in ours}

    @contextmanager
    def _sorted_errors(self, makes: bool = True) -> Iterator[None]:
        """`makes`: whether the next attempt makes a table that is not there, if the options say so."""
        try:
            yield
        except LakewardError as error:
            if isinstance(error, Refused):
                self._known = None  # somebody may mend the table meanwhile
                self._sent.clear()
            raise
        except ODD as error:
            problem = sorted_out(error, str(self._table))
            if makes and self.create and error_class(error) == NO_TABLE:
                problem = Retry(f"{self._table}: somebody dropped the table; it will be made again")
            if error_class(error):
                self._known = None  # the table or the file may not be what they were
                if self._folder:
                    self._folder.forget()
            if isinstance(problem, Refused):
                self._sent.clear()
            if is_lost(error) or isinstance(problem, Refused):
                self._warehouse.drop()
            raise problem from None  # its cause holds what was sent
