"""The account: what is in it and what it takes."""

from __future__ import annotations

import json
import threading
import time
import uuid
from typing import Any

from attrs import define, field

KEY = "c3RhbmQtaW4ga2V5LCBub3QgYSBzZWNyZXQgb2YgYW55Ym9keSBhdCBhbGwgMDEyMzQ1Njc4OWFiY2RlZg=="
"""Of every account at its start; it may do everything."""
LARGEST = 2 * 1024 * 1024
"""Bytes of a document, and of a request."""
MOST = 100
"""Operations of a transactional batch."""
DEEPEST = 128
"""Levels of nesting."""
Document = dict[str, Any]
Partition = dict[str, Document]


class Wrong(Exception):
    """An answer that is none of success."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


@define
class Container:
    """Documents by the JSON of their partition key and by their id."""

    paths: list[str]
    """Of the partition key; only the first is looked at."""
    rid: str
    unique: list[list[str]] = field(factory=list)
    """Paths of each unique key, of one step."""
    partitions: dict[str, Partition] = field(factory=dict)

    def documents(self, partition: str | None) -> list[Document]:
        """Of one partition, or of all."""
        chosen = self.partitions.values() if partition is None else [self.partitions.get(partition, {})]
        return [document for documents in chosen for document in documents.values()]

    def key_of(self, document: Document) -> str:
        """The partition key as JSON."""
        value: Any = document
        for step in self.paths[0].strip("/").split("/"):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, (dict, list)):
            raise Wrong(400, "BadRequest", "Partition key provided either doesn't correspond to definition or is not a scalar")
        if isinstance(value, str) and len(value.encode()) > 2048:
            raise Wrong(400, "BadRequest", "The partition key exceeds the maximum of 2048 bytes")
        return json.dumps(value)

    def apply(
        self, partition: str, documents: Partition, operation: str, body: Document, name: str = "", if_match: str | None = None
    ) -> Any:
        """One operation on the documents of a partition: its status and the document. Raises Wrong and changes nothing then."""
        name = name or body.get("id", "")
        there = documents.get(name) if isinstance(name, str) else None
        if there is None and operation in ("replace", "delete", "read"):
            raise Wrong(404, "NotFound", "Entity with the specified id does not exist in the system.")
        if there is not None and operation == "create":
            raise Wrong(409, "Conflict", "Entity with the specified id already exists in the system.")
        if if_match and there is not None and there["_etag"] != if_match:
            raise Wrong(412, "PreconditionFailed", "One of the specified pre-condition is not met")
        if operation == "read":
            return 200, there
        if operation == "delete":
            return 204, documents.pop(name) and None
        self._check(body, partition)
        self._require_unique(documents, body)
        stored = {
            **body,
            "_rid": self.rid,
            "_self": "",
            "_etag": f'"{uuid.uuid4()}"',
            "_attachments": "attachments/",
            "_ts": int(time.time()),
        }
        documents[body["id"]] = stored
        return (200 if there is not None else 201), stored

    def batch(
        self, partition: str, operations: list[dict[str, Any]], script: Wrong | None, brief: bool
    ) -> tuple[int, list[dict[str, Any]]]:
        """All or nothing: 200 with the results, or 207 with one error among 424s. `script` is what the last operation fails with."""
        if len(operations) > MOST:
            raise Wrong(400, "BadRequest", f"Batch request has more operations than what is supported: {MOST}")
        documents, results = dict(self.partitions.get(partition, {})), []
        for number, one in enumerate(operations):
            try:
                if script and number == len(operations) - 1:
                    raise script
                kind, body, name = one["operationType"].lower(), one.get("resourceBody", {}), one.get("id", "")
                status, stored = self.apply(partition, documents, kind, body, name, one.get("ifMatch"))
                about = {"eTag": stored["_etag"], **({} if brief else {"resourceBody": stored})} if stored else {}
                results.append({"statusCode": status, "requestCharge": 6.0, **about})
            except Wrong as wrong:
                failed = [{"statusCode": 424, "requestCharge": 0.0} for _ in operations]
                failed[number] = {"statusCode": wrong.status, "requestCharge": 1.2, "message": str(wrong)}
                return 207, failed
        self.partitions[partition] = documents
        return 200, results

    def write(self, partition: str, operation: str, body: Document, name: str = "", if_match: str | None = None) -> Any:
        """An operation alone."""
        documents = dict(self.partitions.get(partition, {}))
        result = self.apply(partition, documents, operation, body, name, if_match)
        self.partitions[partition] = documents
        return result

    def _require_unique(self, documents: Partition, body: Document) -> None:
        for paths in self.unique:
            values = [body.get(path.strip("/")) for path in paths]
            others = (other for name, other in documents.items() if name != body["id"])
            if any([other.get(path.strip("/")) for path in paths] == values for other in others):
                raise Wrong(409, "Conflict", "Unique index constraint violation.")

    def _check(self, body: Document, partition: str) -> None:
        name = body.get("id")
        if not isinstance(name, str) or not name or len(name.encode()) > 1023 or set(name) & set("/\\?#") or name != name.rstrip():
            raise Wrong(400, "BadRequest", f"The input content is invalid because the required property 'id' is wrong: {name!r:.40}")
        if "ttl" in body and not (isinstance(body["ttl"], int) and (body["ttl"] == -1 or body["ttl"] > 0)):
            raise Wrong(400, "BadRequest", "The input ttl is invalid. Ensure to provide a nonzero positive integer or -1.")
        if self.key_of(body) != partition:
            raise Wrong(
                400,
                "BadRequest",
                "PartitionKey extracted from document doesn't match the one specified in the header",
                x_ms_substatus="1001",
            )
        if len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()) > LARGEST:
            raise Wrong(413, "RequestEntityTooLarge", "Request size is too large")
        if _depth(body) > DEEPEST:
            raise Wrong(400, "BadRequest", f"The document is nested more than {DEEPEST} levels deep")


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


@define
class Account:
    """Its keys, its budget and its databases. `settings` are what a test may change while it runs."""

    keys: dict[str, str] = field(factory=lambda: {KEY: "all"})
    """What each may do: `all` or `read`."""
    firewall: bool = False
    """On: everybody is turned away."""
    budget: float = 0
    """Request units a second; 0 for no end."""
    script: list[list[Any]] = field(factory=list)
    """Status, sub-status and message of the answers to the next writes and queries, which then do nothing.

    A fourth value is a mapping: `retry_after_ms`, and `operation` when it is not the request that fails but the last operation of a batch.
    """
    databases: dict[str, dict[str, Container]] = field(factory=dict)
    throttled: int = 0
    """Requests answered with 429 so far."""
    requests: int = 0
    """For documents: reads, writes, batches and queries."""
    lock: Any = field(factory=threading.RLock)
    _second: int = 0
    _spent: float = 0

    def change(self, settings: dict[str, Any]) -> None:
        """What a test wants; what was spent before is forgotten."""
        for name, value in settings.items():
            setattr(self, name, value)
        self._spent = 0.0 if settings else self._spent

    def follow_script(self, is_batch: bool) -> Wrong | None:
        """What comes next in it: raised, or given back when it is for an operation of a batch."""
        if not self.script:
            return None
        status, sub, message, *more = self.script.pop(0)
        extra = more[0] if more else {}
        told = {"x_ms_substatus": sub, "x_ms_retry_after_ms": extra.get("retry_after_ms")}
        wrong = Wrong(status, "Scripted", message, **{name: str(value) for name, value in told.items() if value})
        if extra.get("operation") and is_batch:
            return wrong
        raise wrong

    def charge(self, units: float) -> None:
        """Take request units from those of this second, of which the last request may take more than are left."""
        now = time.time()
        if int(now) != self._second:
            self._second, self._spent = int(now), max(0.0, self._spent - self.budget) if self.budget else 0.0
        if self.budget and self._spent >= self.budget:
            self.throttled += 1
            wait = 1000 * (self._spent // self.budget) - 1000 * (now % 1)
            headers = {"x_ms_retry_after_ms": str(max(1, int(wait))), "x_ms_substatus": "3200"}
            raise Wrong(429, "TooManyRequests", "The request rate is large. Please retry after sometime.", **headers)
        self._spent += units

    def database(self, name: str) -> dict[str, Container]:
        """Raises Wrong when there is none."""
        if name not in self.databases:
            raise Wrong(404, "NotFound", "Owner resource does not exist", x_ms_substatus="1003")
        return self.databases[name]

    def container(self, database: str, name: str) -> Container:
        """Raises Wrong when there is none."""
        found = self.database(database).get(name)
        if found is None:
            raise Wrong(404, "NotFound", "Owner resource does not exist", x_ms_substatus="1003")
        return found
