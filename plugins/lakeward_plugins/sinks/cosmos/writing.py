"""Transactional batches of one partition: at most 100 operations and 2 MB, all or none of them.

An item is created. When there is one of its id already (409), an earlier attempt that lost its answer has put it there, or it is another
revision: then the service is asked for what it has, and only the rest is sent. A greater revision replaces a smaller one under the etag
that was read, so that a smaller or equal one never overwrites it: not when it comes again, not when its request was held up on the way,
and not whoever else writes.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from attrs import define, field, frozen
from azure.cosmos.exceptions import CosmosBatchOperationError
from azure.cosmos.partition_key import NullPartitionKeyValue

from lakeward import Refused, Retry
from lakeward_plugins.sinks.cosmos.answers import NEVER, Unhappy, asked_for, is_of_service, problem, said, understood
from lakeward_plugins.sinks.cosmos.items import Item

MOST = 100  # operations in a batch
LARGEST = 2_000_000  # bytes of JSON in a batch; the limit is 2 MiB, and each operation has a few words of its own
ENVELOPE = 100  # bytes of those
PATIENCE = 20.0  # seconds that a throttled request is tried again in its place
FIRST_PAUSE = 0.1  # seconds, then twice as long each time, when the service does not say how long
LAG = 1.0  # second after which a replica knows what an earlier attempt wrote
ROUNDS = 5  # in which others may change the same items
WORDS = {400: "the item is not valid", 413: "the item is larger than 2 MB"}
"""When the service has none."""
TAKEN = "the container has unique keys, and another item of the partition has the same values there"
TIME = re.compile(r"\d{4}-\d\d-\d\d")
T = TypeVar("T")
Place = int
Entry = tuple[Place, Item]
"""An item, and the place of its row in the parcel."""
Rank = tuple[int, int, str]
"""A revision as something that can be compared: nothing, then whole numbers, then times."""


@define
class Progress:
    """What of one parcel is written: remembered between attempts, so that each goes on where the last one failed."""

    parcel: str
    done: set[tuple[int, str, int]] = field(factory=set)
    """Batches, by chunk, partition and number."""
    rejected: dict[Place, str] = field(factory=dict)
    written: int = 0
    there: int = 0
    """Items that were there already."""
    tried: int = 0
    refused: int = 0
    """Items that were sent, and those of them that will never be taken."""
    lock: threading.Lock = field(factory=threading.Lock)


@frozen
class Chunk:
    """Rows of a parcel that are items at the same time."""

    number: int
    partitions: Mapping[tuple[type, Any], list[Entry]]
    """By the partition key; the type tells 1 from true."""
    light: bool
    """Whether any hundred of them fit into one request."""


@frozen
class Failure:
    """One operation of a batch was not taken, and so none was. `index` is None when the request as a whole was not."""

    index: int | None
    status: int
    message: str


@frozen
class There:
    """What the container has under an id."""

    etag: str
    rank: Rank


@define
class Writer:
    """Into one container; used from several threads, each with its own partitions."""

    container: Any
    where: str
    revision: str
    """Property that says which of two items of one id is newer; empty when each id is of one row for ever."""
    met: bool = False
    """Whether the last look found something: then the next batch begins with a look, as a batch that fails costs as much as one."""
    unique: bool = False
    """Whether the container has unique keys: then a conflict may be with an item of another id."""
    stop: threading.Event = field(factory=threading.Event)
    """Set when another thread failed."""

    def write(self, partition: Any, entries: Sequence[Entry], chunk: Chunk, progress: Progress) -> None:
        """All entries of a partition, in order, but for those that were written by an earlier attempt."""
        name = json.dumps(partition)
        for number, batch in enumerate(batches(entries, chunk.light)):
            if self.stop.is_set():
                return
            if (chunk.number, name, number) in progress.done:
                continue
            bad: dict[Place, str] = {}
            there = self._batch(partition, batch, bad)
            with progress.lock:
                progress.done.add((chunk.number, name, number))
                progress.rejected |= bad
                progress.there += there
                progress.tried += len(batch)
                progress.refused += len(bad)
                progress.written += len(batch) - there - len(bad)
                require_some(progress, next(iter(bad.values()), ""), self.where)

    def _batch(self, partition: Any, entries: Sequence[Entry], bad: dict[Place, str]) -> int:
        """How many of them were there already. Those that will never be taken go into `bad`."""
        known: dict[str, There] = self._ask(partition, entries) if self.met else {}
        proven: set[str] = set()  # to be there, though a replica that lags behind may not know yet
        waited = False
        for _ in range(ROUNDS + len(entries)):
            pending = [one for one in entries if one[0] not in bad and self._is_wanted(one[1], known, proven)]
            if not pending:
                break
            failure, there = self._send(partition, pending, known), _good(entries, bad) - len(pending)
            if failure is None:
                return there
            if failure.index is None and len(pending) > 1:  # too large, or something in it that cannot be read
                half = len(pending) // 2
                return there + sum(self._batch(partition, part, bad) for part in (pending[:half], pending[half:]))
            place, item = pending[failure.index or 0]
            if failure.status in NEVER:
                bad[place] = f"Cosmos DB answered {failure.status}: {failure.message}"
                continue
            replaced, known = item["id"] in known, self._ask(partition, entries)
            if failure.status == 409 and self.unique and not replaced and item["id"] not in known and not waited:
                waited = not self.stop.wait(LAG)
                known = self._ask(partition, entries)
            if failure.status == 409 and self.unique and (replaced or item["id"] not in known):
                bad[place] = f"Cosmos DB answered 409: {TAKEN}"
            elif failure.status == 409 and not self.revision:
                proven.add(item["id"])
        else:
            raise Retry(f"{self.where}: others change the same items all the time")
        return _good(entries, bad)

    def _is_wanted(self, item: Item, known: dict[str, There], proven: set[str]) -> bool:
        there = known.get(item["id"])
        if there is None:
            return item["id"] not in proven
        return bool(self.revision) and rank(item[self.revision]) > there.rank

    def _operations(self, entries: Sequence[Entry], known: dict[str, There]) -> list[Any]:
        """Made anew for each request: the library takes the etag out of what it is given."""
        return [
            ("replace", (item["id"], item), {"if_match_etag": known[item["id"]].etag}) if item["id"] in known else ("create", (item,))
            for _, item in entries
        ]

    def _send(self, partition: Any, entries: Sequence[Entry], known: dict[str, There]) -> Failure | None:
        """One request. None when all is written."""

        def request() -> None:
            results = self.container.execute_item_batch(self._operations(entries, known), partition_key=partition)
            if len(results) != len(entries):
                raise Retry(f"{self.where}: the answer does not say that the items are written")

        try:
            return self._patiently(request)
        except Unhappy as error:
            status = int(error.status_code or 0)
            if status in (*NEVER, 404, 409, 412) and isinstance(error, CosmosBatchOperationError):
                told = error.operation_responses[error.error_index]
                return Failure(error.error_index, status, str(told.get("message") or WORDS.get(status, "")))
            if status == 413 or (status in NEVER and is_of_service(error)):
                return Failure(None, status, said(error))
            raise problem(error, self.where) from None

    def _ask(self, partition: Any, entries: Sequence[Entry]) -> dict[str, There]:
        """What the service has under the ids of these items. IN goes by the index; ARRAY_CONTAINS would look at every item."""
        ids = [{"name": f"@id{number}", "value": item["id"]} for number, (_, item) in enumerate(entries)]
        wanted = f"c.id, c._etag, c[{json.dumps(self.revision)}] AS revision" if self.revision else "c.id"
        query = f"SELECT {wanted} FROM c WHERE c.id IN ({', '.join(one['name'] for one in ids)})"
        where = NullPartitionKeyValue if partition is None else partition  # None would mean all partitions here
        try:
            found = self._patiently(lambda: list(self.container.query_items(query, parameters=ids, partition_key=where)))
        except Unhappy as error:
            raise problem(error, self.where) from None
        self.met = bool(found)
        return {one["id"]: There(one.get("_etag", ""), rank(one.get("revision"))) for one in found}

    def _patiently(self, request: Callable[[], T]) -> T:
        """When it is throttled, again in its place after the time that the service asks for, unless that takes too long."""
        waited, attempt = 0.0, 0
        while True:
            try:
                with understood(self.where):
                    return request()
            except Unhappy as error:
                pause = asked_for(error) or FIRST_PAUSE * 2**attempt
                if error.status_code != 429 or waited + pause > PATIENCE or self.stop.wait(pause):
                    raise
                waited, attempt = waited + pause, attempt + 1


def batches(entries: Sequence[Entry], light: bool) -> Iterator[Sequence[Entry]]:
    """Runs of entries that fit into one request each; an item that is too large for any goes alone. Any hundred `light` ones fit."""
    if light:
        yield from (entries[start : start + MOST] for start in range(0, len(entries), MOST))
        return
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        bytes_ = len(json.dumps(entry[1], separators=(",", ":"))) + ENVELOPE
        if batch and (len(batch) == MOST or size + bytes_ > LARGEST):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += bytes_
    if batch:
        yield batch


def newest(entries: Sequence[Entry], revision: str) -> list[Entry]:
    """Of each id the entry with the greatest revision, and of equal ones the first, as that which is there would stay, too."""
    found: dict[str, Entry] = {}
    for entry in entries:
        other = found.setdefault(entry[1]["id"], entry)
        if other is not entry and rank(entry[1][revision]) > rank(other[1][revision]):
            found[entry[1]["id"]] = entry
    return list(found.values())


def rank(value: Any) -> Rank:
    """Of a revision as JSON has it: a number, its text when it is beyond 2^53, or a time, whose unit may have changed since."""
    if isinstance(value, str) and TIME.match(value):
        whole, _, fraction = value.removesuffix("Z").partition(".")
        return 2, 0, f"{whole}.{fraction.rstrip('0')}"
    try:
        return 1, int(value), ""
    except (TypeError, ValueError, OverflowError):
        return 0, 0, ""


def require_some(progress: Progress, reason: str, where: str) -> None:
    """Raises Refused when so many items are refused that the mistake is rather in the container than in the rows."""
    if reason and progress.refused > MOST and 2 * progress.refused > progress.tried:
        raise Refused(f"{where}: {progress.refused} of {progress.tried} items were refused, the last ones because {reason}; look why")


def _good(entries: Sequence[Entry], bad: dict[Place, str]) -> int:
    return sum(place not in bad for place, _ in entries)
