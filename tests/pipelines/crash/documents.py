"""A sink for tests alone: a store of documents that takes one row at a time, each under an id that is the same on every retry."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.metadata import EntryPoint
from pathlib import Path

from attrs import define

from lakeward import ROW, Component, Encoding, Parcel, Receipt, hookimpl, option

LAKEWARD_API = (1, 0)
ENTRY = EntryPoint("crash_documents", "crash.documents", "lakeward")


@hookimpl
def lakeward_components() -> list[Component]:
    return [Component("sink", "documents", "crash.documents:DocumentSink", "Rows as documents, for tests.")]


@define
class DocumentSink:
    """Not all or none: a kill leaves some rows of a parcel, and the retry finds them by their ids."""

    path: Path = option(help="The file of the store.")

    @property
    def encoding(self) -> Encoding:
        return Encoding(row_key=True)

    def deliver(self, parcel: Parcel) -> Receipt:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, isolation_level=None)) as store:
            store.execute("PRAGMA journal_mode=WAL")
            store.execute("CREATE TABLE IF NOT EXISTS documents (document TEXT PRIMARY KEY, id, timestamp, sensor_id, temperature)")
            for batch in parcel.batches():
                columns = (batch.column(name).to_pylist() for name in (ROW, "id", "timestamp", "sensor_id", "temperature"))
                for key, *values in zip(*columns, strict=True):
                    self.put(store, f"{parcel.token.epoch}-{key}", values)
        return Receipt(str(self.path), {})

    def put(self, store: sqlite3.Connection, document: str, values: list[object]) -> None:
        store.execute("INSERT OR IGNORE INTO documents VALUES (?, ?, ?, ?, ?)", (document, *values))

    def close(self) -> None:
        """Nothing is held open."""
