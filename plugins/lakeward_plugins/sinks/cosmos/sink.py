"""The options, and what the kernel calls."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from attrs import define, field
from azure.cosmos import CosmosClient

from lakeward import Encoding, OptionError, Parcel, Receipt, Refused, Retry, option
from lakeward.secrets import Secret
from lakeward_plugins.sinks.cosmos.answers import Unhappy, problem, understood
from lakeward_plugins.sinks.cosmos.items import SYSTEM, Shape, namer
from lakeward_plugins.sinks.cosmos.writing import ENVELOPE, LARGEST, MOST, Chunk, Entry, Progress, Writer, newest

log = logging.getLogger("lakeward.cosmos")
ADDRESS = re.compile(r"https?://[^\s/@?#:]+(:\d{1,5})?/?")
NAME = re.compile(r"[^/\\?#\s](?:[^/\\?#]*[^/\\?#\s])?")
PATH = re.compile(r"(/[^/\"\s]+)+")
CHUNK = 10_000
"""Rows that are items at a time."""
# They print tracebacks: when the account cannot be looked at in the background, which every request would tell of as well, and when an
# answer is cut short in its head.
QUIET = {"azure": logging.INFO, "azure.cosmos._GlobalEndpointManager": logging.CRITICAL, "urllib3.connection": logging.ERROR}


@define
class CosmosSink:
    """One item for each row, in a container that is there. Its id is the same on every retry, so an item is created once.

    Items are written in transactional batches, several partitions at a time. Some of a parcel may be visible before the rest is. Rows that
    Cosmos DB will never take, such as those of more than 2 MB, become dead letters, and the others are there.
    """

    endpoint: str = option(help="Address of the account, such as https://name.documents.azure.com.")
    key: Secret = option(help="A key of the account that may write.")
    database: str = option(help="Name of the database; it must be there.")
    container: str = option(help="Name of the container; it must be there.")
    partition_key: str = option("/city", help="Path of the container's partition key.")
    upsert_by: list[str] = option(
        factory=list, help="Columns that say what an item is about: its id is made of them, and a row of a greater `revision` replaces it."
    )
    revision: str = option(
        "", help="Goes with `upsert_by`: a column of whole numbers or times that grows with each newer row about the same thing."
    )
    own_id: str = option("row_id", help="Property for the rows' own column `id`, as Cosmos DB calls its key so.")
    row_key: bool = option(False, help="Keep the row key, as the property `_row`.")
    inserted_at: str = option("", help="Add a property of this name, with the time of spooling.")
    development: bool = option(False, help="For trials: each run writes items of its own, marked with `development_run`; nothing is once.")
    concurrency: int = option(4, help="Partitions that are written at the same time.", minimum=1, maximum=64)
    connect_timeout: timedelta = option(timedelta(seconds=5), help="Longest wait for a connection.", minimum=0.1)
    timeout: timedelta = option(timedelta(seconds=60), help="Longest wait for a piece of an answer.", minimum=0.1)
    _where: str = field(init=False, repr=False, eq=False)
    _shape: Shape = field(init=False, repr=False, eq=False)
    _open: Any = field(init=False, default=None, repr=False, eq=False)
    _held: ExitStack = field(init=False, factory=ExitStack, repr=False, eq=False)
    _met: bool = field(init=False, default=False, repr=False, eq=False)
    _unique: bool = field(init=False, default=False, repr=False, eq=False)
    _progress: Progress = field(init=False, factory=lambda: Progress(""), repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not ADDRESS.fullmatch(self.endpoint):  # nor a key in it: messages show it
            raise OptionError("endpoint", "is not an address such as https://name.documents.azure.com")
        for name in ("database", "container"):
            if not NAME.fullmatch(getattr(self, name)):
                raise OptionError(name, "cannot be a name: not empty, no / \\ ? # in it, no blank at its ends")
        if not PATH.fullmatch(self.partition_key):
            raise OptionError("partition_key", f"{self.partition_key!r} is not a path such as /city")
        if self.revision and not self.upsert_by:
            raise OptionError("revision", "says which of two items of one id is newer, and only `upsert_by` makes such ids; give that too")
        if self.upsert_by and not self.revision:
            such = "`revision` of windows, `event_ts` of alerts, the time of readings"
            raise OptionError("upsert_by", f"needs a `revision`, so that an older row that comes again never replaces a newer one: {such}")
        try:
            base64.b64decode(self.key.reveal(), validate=True)
        except (binascii.Error, ValueError):
            raise OptionError("key", "is not a key of an account: it is not base64; take the primary or the secondary key") from None
        self.endpoint = self.endpoint.rstrip("/")
        self._where = f"{self.endpoint}/{self.database}/{self.container}"
        run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}" if self.development else ""
        path = tuple(self.partition_key.strip("/").split("/"))
        self._shape = Shape(path, tuple(self.upsert_by), self.revision, self.own_id, self.row_key, run)

    @property
    def encoding(self) -> Encoding:
        """With the row key, which ids are made of."""
        return Encoding(row_key=True, inserted_at=self.inserted_at)

    def probe(self, schema: pa.Schema) -> str:
        """Where items would go; looks whether the container is there."""
        self._shape.check(schema)
        self._container()
        how = f"upsert items by {', '.join(self.upsert_by)}" if self.upsert_by else "create items"
        return f"would {how} in {self._where}, partitioned by {self.partition_key}"

    def deliver(self, parcel: Parcel) -> Receipt:
        """Write all items; whatever an earlier attempt has written is left alone."""
        container = self._container()
        if self._progress.parcel != str(parcel.token):
            self._progress = Progress(str(parcel.token))
        writer = Writer(container, self._where, self._shape.property_of(self.revision), self._met, self._unique)
        name, first = namer(parcel), 0
        try:
            for number, rows in enumerate(parcel.batches(CHUNK)):
                self._write(writer, self._chunk(number, rows, name(rows, first), first))
                first += rows.num_rows
        except Refused:
            self.close()  # the next attempt looks anew at what somebody may have mended
            raise
        done, self._met = self._progress, writer.met
        return Receipt(self._where, {"written": done.written, "already_there": done.there}, dict(done.rejected))

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None, partition: Any = None, limit: int | None = None) -> pa.Table:
        """What a query gives, such as `SELECT TOP 5 * FROM c WHERE c.city = @city ORDER BY c.timestamp DESC`; at most `limit` rows.

        `parameters` are values for names such as `@city`; `partition` is the one partition to look into, all of them when it is left out.
        A value that is none of an object is in the column `value`. Raises Retry or Refused.
        """
        given = [{"name": name, "value": value} for name, value in (parameters or {}).items()]
        scope = {"enable_cross_partition_query": True} if partition is None else {"partition_key": partition}
        found: list[Any] = []
        try:
            with understood(self._where):
                for one in self._container().query_items(sql, parameters=given, **scope):
                    if limit is not None and len(found) >= limit:
                        break
                    found.append(one)
        except Unhappy as error:
            raise problem(error, self._where, "correct the query") from None
        return _table(found)

    def endpoints(self) -> list[str]:
        """The account, by its gateway: TCP port 443, and none of those of the direct mode (10250 to 10255)."""
        return [self.endpoint]

    def try_out(self) -> str:
        """Create an item in a partition of its own and remove it."""
        name = f"lakeward-doctor-{secrets.token_hex(4)}"
        item: Any = name
        for step in reversed(self._shape.partition_key):
            item = {step: item}
        try:
            with understood(self._where):
                container = self._container()
                container.create_item(item | {"id": name})
                container.delete_item(name, partition_key=name)
        except Unhappy as error:
            raise problem(error, self._where) from None
        return f"created and removed an item in {self._where}"

    def phrase(self, *, count: bool, where: Mapping[str, str], newest: str, limit: int) -> str:
        """A query for the number of items, or for the newest."""
        return self._shape.phrase(count, where, newest, limit)

    def facts(self) -> dict[str, str]:
        """Which container it is."""
        return {"place": self._where}

    def close(self) -> None:
        """Close connections that are kept open between requests, and forget what is written: the container may be another one next time."""
        self._held.close()
        self._open, self._progress = None, Progress("")

    # -- inside --------------------------------------------------------------------------------------------------------

    def _container(self) -> Any:
        """Opened once, after a look whether its partition key is what the options say."""
        if self._open is not None:
            return self._open
        for name, least in QUIET.items():
            logging.getLogger(name).setLevel(max(least, logging.getLogger(name).getEffectiveLevel()))
        try:
            with understood(self._where):
                client = self._held.enter_context(self._client())
                container = client.get_database_client(self.database).get_container_client(self.container)
                found = container.read()
                paths, unique = found["partitionKey"]["paths"], bool((found.get("uniqueKeyPolicy") or {}).get("uniqueKeys"))
        except Unhappy as error:
            self.close()
            raise problem(error, self._where) from None
        except Retry:
            self.close()
            raise
        if paths != [self.partition_key]:
            self.close()
            todo = "set `partition_key` to it" if len(paths) == 1 else "make a container whose partition key is one path"
            raise Refused(f"{self._where}: the partition key of the container is {', '.join(paths)}, not {self.partition_key}; {todo}")
        if self.development:
            log.warning(
                "%s: development is on: items of this run are marked %s, and a restart writes rows again", self._where, self._shape.run
            )
        self._open, self._unique = container, unique
        return container

    def _client(self) -> CosmosClient:
        """One that tries nothing again by itself: 0 throttled retries would mean the default of nine, so it is -1."""
        return CosmosClient(
            self.endpoint,
            self.key.reveal(),
            enable_endpoint_discovery=False,  # the address that was given, which points to the region that takes writes
            connection_timeout=self.connect_timeout.total_seconds(),
            read_timeout=self.timeout.total_seconds(),
            no_response_on_write=True, retry_total=0, retry_connect=0, retry_read=0, retry_status=0, retry_throttle_total=-1,
        )  # fmt: skip

    def _chunk(self, number: int, rows: pa.RecordBatch, names: list[str], first: int) -> Chunk:
        """The items of each partition. `first` is the place of the first row in the parcel."""
        try:
            self._shape.check(rows.schema)
        except OptionError as error:
            raise Refused(f"{self._where}: {error}") from error
        items, bad = self._shape.items(rows, names)
        partitions: dict[tuple[type, Any], list[Entry]] = {}
        for place, item in enumerate(items, first):
            if item is not None:
                try:
                    partition = self._shape.partition_of(item)
                    partitions.setdefault((type(partition), partition), []).append((place, item))
                except ValueError as error:
                    bad[place - first] = str(error)
        self._progress.rejected |= {first + place: reason for place, reason in bad.items()}
        return Chunk(number, partitions, self._shape.longest(rows) + ENVELOPE <= LARGEST // MOST)

    def _write(self, writer: Writer, chunk: Chunk) -> None:
        """All partitions, some at a time; when one fails the others stop after the batch in hand."""
        errors: list[BaseException] = []

        def work(partition: Any, entries: Sequence[Entry]) -> None:
            try:
                writer.write(partition, newest(entries, writer.revision) if writer.revision else entries, chunk, self._progress)
            except BaseException as error:  # noqa: BLE001  # told by the thread that waits
                errors.append(error)
                writer.stop.set()

        with ThreadPoolExecutor(min(self.concurrency, max(1, len(chunk.partitions))), thread_name_prefix="cosmos") as pool:
            wait([pool.submit(work, partition, entries) for (_, partition), entries in chunk.partitions.items()], return_when=ALL_COMPLETED)
        if errors:
            raise next((error for error in errors if not isinstance(error, Retry)), errors[0])


def _table(found: Sequence[Any]) -> pa.Table:
    """Columns of all names that are there; one with values of several types is JSON text. Of whole items without what the service adds."""
    rows = [one if isinstance(one, dict) else {"value": one} for one in found]
    rows = [{name: one[name] for name in one if name not in SYSTEM} if one.keys() >= {*SYSTEM} else one for one in rows]
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, Any] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            columns[name] = pa.array([None if value is None else json.dumps(value) for value in values])
    return pa.table(columns)
