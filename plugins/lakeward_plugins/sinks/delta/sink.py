"""Rows into a Delta Lake table: each parcel is one commit, which also notes in the table that the parcel is in.

Before a parcel is appended, the table is asked whether it has that note already.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from attrs import define, field
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from lakeward import ROW, Encoding, Parcel, Receipt, Refused, Rejected, Retry, option
from lakeward.folders import require_writable
from lakeward.notes import Note, note_of
from lakeward.options import Address
from lakeward.partitions import require_columns
from lakeward.secrets import Secret
from lakeward.upserts import newest, require_revision
from lakeward.wording import first_line
from lakeward_plugins.aws.account import Account
from lakeward_plugins.sinks.delta import tail
from lakeward_plugins.sinks.delta.fitting import Policy, add_columns, fitted, fitting
from lakeward_plugins.sinks.delta.merging import merge
from lakeward_plugins.sinks.delta.notes import Known, as_transactions, bring_up_to_date, known_after, require_absent
from lakeward_plugins.sinks.delta.place import LOG, NO_HOOKS, Place
from lakeward_plugins.sinks.delta.shipping import can_ship, commit, require_values, upload
from lakeward_plugins.sinks.delta.store import CONNECT, Store
from lakeward_plugins.sinks.delta.upkeep import Upkeep

if TYPE_CHECKING:  # it loads more of Arrow than a run needs
    import pyarrow.dataset


ATTEMPTS = 5  # commits lost to other writers in a row before the kernel's backoff takes over
SECOND = timedelta(seconds=1)
COMPRESSIONS: dict[str, Any] = {"snappy": "SNAPPY", "zstd": "ZSTD", "gzip": "GZIP", "none": "UNCOMPRESSED"}


@define
class DeltaSink:
    """A Delta Lake table in a local folder or in S3; made with the first parcel when it is not there.

    Rows must have the columns of the table, in any order. Any number of sinks, of any number of machines, can write to one table.
    delta-rs, which does the writing, syncs nothing to disk; in a local folder this sink syncs the files of a commit right after it,
    before it gives its receipt. A power cut within those milliseconds may leave a commit whose file is cut short; the sink then
    refuses and names the file.
    """

    path: Address = option(help="Folder of the table, or `s3://bucket/table`; made when it is not there.")
    partition_by: list[str] = option(factory=list, help="Columns whose values split a table that is made into folders.")
    new_columns: Policy = option("refuse", help="What to do about columns that the table does not have.")
    upsert_by: list[str] = option(
        factory=list, help="Columns that name a row: one with the same values and a greater `revision` replaces it."
    )
    revision: str = option("", help="Goes with `upsert_by`: a column; only a row with a greater value replaces the one in the table.")
    create: bool = option(True, help="Make the table when it is not there; otherwise that is an error.")
    compact_every: int = option(100, help="Make small files into large ones after so many commits; 0 for never.", minimum=0)
    keep_removed: timedelta = option(timedelta(days=7), help="How long files stay that no version needs.", minimum=3600)
    history: timedelta = option(timedelta(days=1), help="Of a table that is made: how long its older versions can be read.", minimum=0)
    compression: Literal["snappy", "zstd", "gzip", "none"] = option("snappy", help="How pages of the data files are compressed.")
    row_key: bool = option(False, help="Keep the row key, the column `_row`.")
    inserted_at: str = option("", help="Add a column of this name, such as databricks_inserted_at, with the time of spooling.")
    region: str = option("", help="Region of the bucket; left out, what the AWS environment says.")
    endpoint_url: str = option("", help="Address of a store that is not AWS, such as https://minio.local:9000.")
    profile: str = option("", help="Profile in the AWS files to take credentials from; left out, what the AWS environment says.")
    access_key_id: Secret | None = option(None, help="With `secret_access_key`; left out, the AWS chain is asked.")
    secret_access_key: Secret | None = option(None, help="Of that access key.")
    session_token: Secret | None = option(None, help="Of temporary credentials.")
    timeout: timedelta = option(timedelta(seconds=60), help="Longest wait for one answer of S3.", minimum=0.1)
    _place: Place = field(init=False, repr=False, eq=False)
    _upkeep: Upkeep = field(init=False, repr=False, eq=False)
    _options: dict[str, str] | None = field(init=False, default=None, repr=False, eq=False)
    _known: Known | None = field(init=False, default=None, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        require_revision(self.upsert_by, self.revision)
        uri, store = str(self.path).rstrip("/"), None
        keys = (self.access_key_id, self.secret_access_key, self.session_token)
        endpoint = self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        account = Account(self.region, endpoint, self.profile, keys, CONNECT, self.timeout)
        if "://" in uri:
            bucket, _, prefix = uri.partition("://")[2].partition("/")
            store = Store(bucket, prefix, account)
        self._place = Place(uri if store else str(Path(self.path).absolute()), store)
        self._upkeep = Upkeep(self.compact_every, self.keep_removed, self.compression)

    @property
    def encoding(self) -> Encoding:
        """Files as the options say."""
        return Encoding(self.compression, self.row_key, self.inserted_at)

    def probe(self, schema: pa.Schema) -> str:
        """Whether the rows would fit into the table; `OptionError` or `Refused` when not."""
        if self._place.local:
            require_writable(self._place.local, "path")
        with self._place.sorted_errors():
            table = self._place.load()
        key = schema.get_field_index(ROW)
        self._fitting(schema if self.row_key or key < 0 else schema.remove(key), table)
        what = f"append to version {table.version()} of" if table else "make"
        return f"would {what} the Delta table {self._place.uri}"

    def endpoints(self) -> list[str]:
        """The folder, or the store."""
        with self._place.sorted_errors():
            return [self._place.local.as_uri() if self._place.local else self._place.store.address() if self._place.store else ""]

    def try_out(self) -> str:
        """In S3: write an empty object in the folder of the table and remove it."""
        if not self._place.store:
            return f"as the folder {self._place.uri} can"
        with self._place.sorted_errors():
            self._place.store.try_out(f".lakeward-doctor-{secrets.token_hex(4)}")
        return f"wrote and removed an object in {self._place.uri}"

    def stored(self) -> pyarrow.dataset.Dataset | pa.Table:
        """The rows of the newest version."""
        with self._place.sorted_errors():
            table = self._place.load()
            return table.to_pyarrow_dataset() if table else pa.table({})

    def facts(self) -> dict[str, str | int]:
        """Where the table is, its version, and of how many files it is."""
        with self._place.sorted_errors():
            table = self._place.load()
            found: dict[str, str | int] = {"place": self._place.uri}
            return found | ({"version": table.version(), "files": len(table.file_uris())} if table else {})

    def deliver(self, parcel: Parcel) -> Receipt:
        """Append the rows and the note in one commit, unless the note is there."""
        note, problem, where = note_of(parcel), "", self._place.uri
        with self._place.sorted_errors():
            for _ in range(ATTEMPTS):
                known, self._known = self._newest(note), None  # whatever goes wrong after this, the table is loaded anew
                if known and known.has(note, where):
                    version = self._require_whole()
                    return Receipt(where, {"version": version, "already_there": True})
                try:
                    return Receipt(where, {"version": self._commit(parcel, known, note), "already_there": False})
                except CommitFailedError as error:  # another writer was first; it may have been an earlier attempt of ours: look again
                    problem = first_line(error)
        raise Retry(f"{where}: could not commit, other writers were first {ATTEMPTS} times in a row: {problem}")

    def close(self) -> None:
        """Close connections that are kept open between requests."""
        self._known = None
        if self._place.store:
            self._place.store.forget()

    def _newest(self, note: Note) -> Known | None:
        known, folder = self._known, self._place.local
        options = self._place.options()
        if options != self._options:  # credentials that end, of a role say, were renewed
            known, self._options = None, options
        if known and not (known.ours and known.ours[1].id == note.id and self._place.has_commit(*known.ours)):
            known = None
        if known and folder and tail.is_current(folder / LOG, known.version):
            return known
        if known and not folder:
            known.table.update_incremental()  # much cheaper where each request costs
            return Known(known.table, known.table.version(), known.ours)
        table = self._place.load()
        return Known(table, table.version()) if table else None

    def _require_whole(self) -> int:
        """An earlier attempt made the commit, but may have ended before it was durable."""
        table = self._place.load()
        if table is None:
            raise Retry(f"{self._place.uri}: the table was there a moment ago and is gone")
        self._place.require_whole(table)
        return table.version()

    def _fitting(self, schema: pa.Schema, table: DeltaTable | None) -> tuple[pa.Schema, Sequence[str]]:
        if table is None and not self.create:
            raise Refused(f"{self._place.uri}: there is no Delta table; make it, correct `path`, or leave out `create: false`")
        require_columns(schema, [] if table else self.partition_by)
        if table and self.partition_by and table.metadata().partition_columns != self.partition_by:
            there = table.metadata().partition_columns
            raise Refused(f"{self._place.uri}: the table is there with partition_by {there}, not {self.partition_by}; correct the option")
        return fitting(schema, table, self._place.uri, self.new_columns)

    def _commit(self, parcel: Parcel, known: Known | None, note: Note) -> int:
        """The version after the commit, which is checked against the very table that was asked for the note."""
        table, before = (known.table, known.version) if known else (None, -1)
        schema = pq.read_schema(parcel.path).remove_metadata()
        try:
            stored, added = self._fitting(schema, table)
        except Rejected as error:  # by the policy for new columns: all of them
            raise Rejected(str(error), range(parcel.rows)) from None
        require_values(parcel, stored, table.metadata().partition_columns if table else self.partition_by)
        if table and added:
            table.update_incremental()
            add_columns(table, [stored.field(name) for name in added])
            require_absent(table, note)
            before = table.version()
        self._place.prepare()
        if table is None and self._place.store:  # so that a data file is never uploaded by delta-rs, which panics when that fails
            table = self._make(stored)
        if table and not self.upsert_by and can_ship(parcel, table):
            self._known = known  # but an upload that fails has changed nothing
            files = upload(parcel, schema, table, self._place)
            self._known = None
            version = commit(files, table, before, self._place, note, parcel.token.name)
        else:
            table = self._write(parcel, table, stored, note)
            version = table.version()
            self._place.sync_commits(range(before + 1, version + 1))
        tidied = self._upkeep.after(table, before, version, self._place)
        self._known = known_after(tidied, version, note) if tidied else None
        return version

    def _write(self, parcel: Parcel, table: DeltaTable | None, stored: pa.Schema, note: Note) -> DeltaTable:
        """Rows that must be cast, checked, split or merged are encoded by delta-rs; the table with them."""
        misfits: list[Exception] = []
        # a new table's commit has nothing to be checked against: if it were tried again as version 1, the rows would be there twice
        retries = tail.CROWD if table and not self.upsert_by else 0
        properties = CommitProperties(app_transactions=as_transactions(note), max_commit_retries=retries)
        if table:
            bring_up_to_date(table, note)
        rows, writer = fitted(parcel.batches(), stored, misfits), WriterProperties(compression=COMPRESSIONS[self.compression])
        try:
            if self.upsert_by:  # of rows that fit: their places are still those in the parcel
                whole = pa.Table.from_batches(rows, stored).combine_chunks().to_batches()[0]
                rows = iter([newest(whole, self.upsert_by, self.revision)])
            if table and self.upsert_by:
                merge(next(rows), table, self.upsert_by, self.revision, properties, writer)
            else:
                write_deltalake(
                    table or self._place.uri,
                    pa.RecordBatchReader.from_batches(stored, rows),
                    mode="append" if table else "error",
                    schema_mode="merge" if table and len(stored) < len(table.schema().fields) else None,
                    partition_by=None if table else self.partition_by or None,
                    configuration=None if table else self._configuration(),
                    commit_properties=properties,
                    post_commithook_properties=NO_HOOKS,
                    writer_properties=writer,
                    storage_options=None if table else self._place.options(),
                )
        except (DeltaError, OSError, pa.ArrowException) as error:
            if misfits:
                raise misfits[0] from None
            if table is None and self._place.load():
                raise CommitFailedError("another writer made the table first") from error
            raise
        made = table or self._place.load()
        assert made, "a table that was just written is there"  # noqa: S101
        return made

    def _make(self, stored: pa.Schema) -> DeltaTable:
        made = {"partition_by": self.partition_by or None, "configuration": self._configuration(), "storage_options": self._place.options()}
        try:
            return DeltaTable.create(self._place.uri, stored, **made)  # type: ignore[arg-type]
        except (DeltaError, OSError) as error:
            if self._place.load():
                raise CommitFailedError("another writer made the table first") from error
            raise

    def _configuration(self) -> dict[str, str | None]:
        """Of a table that is made: checkpoints as Spark makes them, as without them each commit costs more than the one before."""
        times = {"logRetentionDuration": self.history, "deletedFileRetentionDuration": self.keep_removed}
        return {"delta.checkpointInterval": "10", **{f"delta.{name}": f"interval {time // SECOND} seconds" for name, time in times.items()}}
