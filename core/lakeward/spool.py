"""Parquet files waiting for delivery: written once, whole and synced, never changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pyarrow as pa
from attrs import frozen

from lakeward.components import ROW, Encoding, Parcel
from lakeward.durable import make_folder, sync
from lakeward.errors import Refused
from lakeward.room import needing_room


@frozen
class SpoolFile:
    """A file in the spool."""

    name: str
    bytes: int
    sha256: str


class Spool:
    """The folder `spool` of a state directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own: dict[str, tuple[int, ...]] = {}  # what this process wrote and synced, as long as nobody changed it
        with needing_room(folder):
            make_folder(folder)

    def write(self, name: str, rows: pa.RecordBatch, encoding: Encoding, now: datetime) -> SpoolFile:
        """SPOOL: encode, write, sync, rename. `sync` follows once for all files of a batch. Raises NoRoom."""
        content = encode(rows, encoding, now)
        digest = hashlib.sha256(content).hexdigest()
        temporary = self.folder / f"{name}.tmp"
        try:
            with needing_room(temporary), temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                self._own[f"{name}.parquet"] = _identity(os.fstat(file.fileno()))
            temporary.rename(self.folder / f"{name}.parquet")
        except BaseException:  # on a full disk others need the room
            temporary.unlink(missing_ok=True)
            raise
        return SpoolFile(f"{name}.parquet", content.size, digest)

    def sync(self) -> None:
        """Make the names of the files durable."""
        with needing_room(self.folder):
            sync(self.folder)

    def verify(self, parcel: Parcel) -> None:
        """The file is what was written, so that a sink never ships anything else as these rows. Raises Refused."""
        try:
            with parcel.path.open("rb") as file:
                whole = self._own.get(parcel.path.name) == _identity(os.fstat(file.fileno()))
                whole = whole or hashlib.file_digest(file, "sha256").hexdigest() == parcel.sha256
        except FileNotFoundError:
            whole = False
        if not whole:
            remedy = "start anew with another --state-dir (every row is then sent again)"
            raise Refused(f"spooled file {parcel.path} is damaged or gone, so its {parcel.rows:,} rows cannot be delivered; {remedy}")

    def drop(self, name: str) -> None:
        """Forget a file that nobody needs. When that fails, or after a crash in between, `clean` does it."""
        self._own.pop(name, None)
        with suppress(OSError):
            (self.folder / name).unlink()

    def clean(self, needed: Iterable[str]) -> None:
        """Remove what a crash left: everything that was never recorded, or settled but not yet removed."""
        keep = set(needed)
        for path in self.folder.iterdir():
            if path.name not in keep:
                path.unlink()


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def encode(rows: pa.RecordBatch, encoding: Encoding, now: datetime) -> pa.Buffer:
    """The rows as the bytes of one Parquet file: the same rows and time give the same bytes."""
    import pyarrow.parquet as pq  # an idle run need not pay for it

    if ROW in rows.schema.names and not encoding.row_key:
        rows = rows.drop_columns([ROW])
    if encoding.inserted_at:
        rows = rows.append_column(encoding.inserted_at, pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), rows.num_rows))
    out = pa.BufferOutputStream()
    # dictionaries pay for text only: a quarter less CPU than for every column, for a little more size
    texts = [column.name for column in rows.schema if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)]
    writer = pq.ParquetWriter(out, rows.schema, compression=encoding.compression, use_dictionary=texts or False)  # type: ignore[arg-type]  # a list of names is allowed as well
    with writer:
        writer.write_batch(rows)
    return out.getvalue()
