"""Parquet files that grow, one for each city and sensor say: `archive/Oslo/abc123.parquet`.

To append, the file is written anew beside the old one, with the new rows at its end, synced and renamed over it: a reader sees the old or
the new one, whole, at any moment. The file's own metadata notes which parcels are in it, so rows and note appear together, and a parcel
that is delivered again after a crash adds nothing. So that an append never costs more than writing `max_mb`, a file that has come to that
stays as it is for ever, and rows go on in `abc123.0001.parquet`; so they do when the columns change.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from attrs import define, field, frozen

from lakeward import Encoding, OptionError, Parcel, Receipt, Refused, Rejected, option
from lakeward.durable import make_folder, sync
from lakeward.folders import require_writable, writing
from lakeward.notes import Note, note_of
from lakeward.trail import Placed
from lakeward.wording import first_line
from lakeward_plugins.sinks.archive_names import END, Template, grouped

if TYPE_CHECKING:
    import pyarrow.fs


log = logging.getLogger("lakeward.archive")
NOTE = b"lakeward"
"""Key of the note in the metadata of a file."""
LOCK = ".lakeward.lock"
GROUP = 100_000  # rows of a row group
REMEMBERED = 1_000  # newest notes that a file keeps, one for each state and epoch; older ones can come no more
PART = re.compile(r"(?P<stem>.+?)(?:\.(?P<number>\d{4,}))?\.parquet")
Known = dict[str, tuple[int, int]]
"""Number and content of the newest parcel in a file, by the id of its note."""


@frozen
class Grown:
    """A file of which the new version is written and synced beside it."""

    part: Path
    target: Path
    bytes: int


@define
class ArchiveSink(Placed):
    """One Parquet file for each value of some columns, which grows; the newest part of it has the greatest number.

    A reader may see a parcel in some files a moment before it is in the others. Several pipelines and backfills may share a folder. Each
    append writes the whole file: `max_mb`, and few large batches rather than many small ones, keep that cheap.
    """

    kind: ClassVar = "archive"
    placed_by: ClassVar = ("path", "file")
    path: Path = option(help="Folder of the archive; made when it is not there.")
    file: str = option("{city}/{sensor}.parquet", help="Name of the files below it, made of columns, such as {sensor_id}.parquet.")
    max_mb: float = option(8, help="A file that has come to this size is left as it is, and a new one is begun.", unit="MB", minimum=0.001)
    compression: Literal["snappy", "zstd", "gzip", "none"] = option("snappy", help="How pages of the files are compressed.")
    row_key: bool = option(False, help="Keep the row key, the column `_row`.")
    inserted_at: str = option("", help="Add a column of this name, such as archived_at, with the time of spooling.")
    _template: Template = field(init=False, repr=False, eq=False)
    _parts: dict[Path, int] = field(
        init=False, factory=dict, repr=False, eq=False
    )  # greatest number of a part that was seen, by first part
    _folders: set[Path] = field(init=False, factory=set, repr=False, eq=False)  # that were looked through for them

    def __attrs_post_init__(self) -> None:
        self._template = Template.of(self.file, "file")

    @property
    def encoding(self) -> Encoding:
        """The default as far as possible, so that the spooled file is shared with other sinks."""
        return Encoding(row_key=self.row_key, inserted_at=self.inserted_at)

    def probe(self, schema: pa.Schema) -> str:
        """Where files would go; `OptionError` or `Refused` when they could not."""
        self._template.check(schema, "file")
        require_writable(self.path, "path")
        return f"would append to Parquet files {self.path / self.file} of up to {self.max_mb:g} MB"

    def holds(self, parcel: Parcel) -> bool:
        """Whether the rows are in one of their files."""
        if not self.path.is_dir():
            log.warning("%s: is not there any more, so nobody can see whether rows of %s are in it", self.path, parcel.token.name)
            return False
        try:
            places, _ = self._named(parcel.table())
        except (Refused, Rejected):  # such rows were never written
            return False
        files = (file for name in places for file in _parts(self.path.absolute() / name))
        return any(_is_in(note_of(parcel), _noted(file)[0], file) for file in files)

    def write(self, parcel: Parcel) -> Receipt:
        """Append what is not there yet."""
        with writing("the archive", self.path):
            rows = parcel.table()
            places, bad = self._named(rows)
            make_folder(self.path.absolute())
            with _locked(self.path):
                grown = self._grow(parcel, rows, places)
            written = sum(one.bytes for one in grown)
        return Receipt(str(self.path), {"files": len(places), "grown": len(grown), "bytes_written": written}, bad)

    def endpoints(self) -> list[str]:
        """The folder."""
        return [self.path.absolute().as_uri()]

    def stored(self) -> tuple[pyarrow.fs.FileSystem, list[str]]:
        """The files that are there now."""
        import pyarrow.fs

        return pyarrow.fs.LocalFileSystem(), sorted(str(file) for file in self.path.glob(f"**/[!.]*{END}"))

    def facts(self) -> dict[str, str | int]:
        """Where the files are, and how many."""
        return {"place": str(self.path), "files": len(self.stored()[1])}

    def _named(self, rows: pa.RecordBatch) -> tuple[dict[str, list[int]], dict[int, str]]:
        try:
            self._template.check(rows.schema, "file")
        except OptionError as error:
            raise Refused(f"{self.path}: {error}") from error
        return grouped(*self._template.names(rows))

    def _grow(self, parcel: Parcel, rows: pa.RecordBatch, places: dict[str, list[int]]) -> list[Grown]:
        """All new versions are written before the first is shown, so that files differ for a moment only."""
        grown: list[Grown] = []
        if len({name.lower() for name in places}) < len(places) and (self.path / LOCK.upper()).exists():
            alike = next(name for name in places if sum(name.lower() == other.lower() for other in places) > 1)
            raise Refused(
                f"{self.path}: its file system takes {alike} and another name for one, and there would be no room for both; move it"
            )
        try:
            for name, found in places.items():
                if version := self._append(parcel, self._base(name), rows.take(pa.array(found, pa.int64()))):
                    grown.append(version)
            for one in grown:
                one.part.rename(one.target)
        except BaseException:  # on a full disk every byte counts
            for one in grown:
                one.part.unlink(missing_ok=True)
            self._folders.clear()  # one may have been removed, and parts that were counted are not there
            self._parts.clear()
            raise
        for folder in {self._base(name).parent for name in places}:  # on a retry too: the first attempt may have ended before this line
            sync(folder)
        return grown

    def _base(self, name: str) -> Path:
        """The first part, in a folder that is there and below that of the archive."""
        base = self.path.absolute() / name
        if base.parent not in self._folders:
            make_folder(base.parent)
            if not base.parent.resolve().is_relative_to(self.path.resolve()):
                raise Refused(f"{base.parent} leads out of {self.path} by a link; make it a folder")
            for entry in os.scandir(base.parent):
                if found := PART.fullmatch(entry.name):
                    first = base.with_name(found["stem"] + END)
                    self._parts[first] = max(int(found["number"] or 0), self._parts.get(first, 0))
            self._folders.add(base.parent)
        return base

    def _append(self, parcel: Parcel, base: Path, rows: pa.RecordBatch) -> Grown | None:
        """The next version of the newest part, or the first of a new one; None when the parcel is in it."""
        note, number = note_of(parcel), self._parts.get(base, 0)
        while _part(base, number + 1).exists():  # another process has begun it
            number += 1
        target, known, old = _part(base, number), Known(), None
        if target.exists():
            known, schema = _noted(target)
            if _is_in(note, known, target):
                return None
            if target.stat().st_size < self.max_mb * 1e6 and schema.equals(rows.schema):
                old = target
            else:
                number, target = number + 1, _part(base, number + 1)
            known.pop(note.id, None)
        known = dict(list(known.items())[1 - REMEMBERED :]) | {note.id: (note.number, note.content)}
        part = target.with_name(f".{target.name}.part")
        try:
            self._write(part, rows, old, known)
            sync(part)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self._parts[base] = number
        return Grown(part, target, part.stat().st_size)

    def _write(self, part: Path, rows: pa.RecordBatch, old: Path | None, known: Known) -> None:
        texts = [one.name for one in rows.schema if pa.types.is_string(one.type) or pa.types.is_large_string(one.type)]
        schema = rows.schema.remove_metadata()
        with pq.ParquetWriter(part, schema, compression=self.compression, use_dictionary=texts or False) as writer:  # type: ignore[arg-type]  # a list of names is allowed as well
            for table in _regrouped(_chained(old, rows), schema):
                writer.write_table(table, row_group_size=GROUP)
            writer.add_key_value_metadata({NOTE.decode(): json.dumps({"parcels": known})})


def _part(base: Path, number: int) -> Path:
    return base.with_name(f"{base.name.removesuffix(END)}.{number:04d}{END}") if number else base


def _parts(base: Path) -> list[Path]:
    """All parts that are there."""
    found = base.parent.glob(f"{base.name.removesuffix(END)}*{END}")
    return [file for file in found if (match := PART.fullmatch(file.name)) and match["stem"] + END == base.name]


def _is_in(note: Note, known: Known, file: Path) -> bool:
    """Whether the parcel of a note is in a file. Raises Refused when other rows are there in its place."""
    number, content = known.get(note.id, (None, None))
    return note.is_in(number, content, str(file))


def _noted(file: Path) -> tuple[Known, pa.Schema]:
    """The newest parcel of each state and epoch in a file, and its columns. Raises Refused when the file is none of ours."""
    try:
        with pq.ParquetFile(file) as opened:
            note, schema = (opened.metadata.metadata or {}).get(NOTE), opened.schema_arrow
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise Refused(
            f"{file} cannot be read as Parquet ({first_line(error)}); restore it, or move it away: rows then go on in a new one"
        ) from error
    if note is None:
        raise Refused(f"{file} is there already and is none that this sink wrote; give the sink another folder, or move that file away")
    return {name: (number, content) for name, (number, content) in json.loads(note)["parcels"].items()}, schema.remove_metadata()


def _chained(old: Path | None, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if old is not None:
        with pq.ParquetFile(old) as file:
            yield from file.iter_batches(GROUP)
    yield rows


def _regrouped(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Tables of GROUP rows, however small the appends were; in memory is one of them, not the file."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        while count >= GROUP:
            table = pa.Table.from_batches([one.replace_schema_metadata(None) for one in waiting], schema)
            yield table.slice(0, GROUP)
            waiting, count = table.slice(GROUP).to_batches(), count - GROUP
    if count:
        yield pa.Table.from_batches([one.replace_schema_metadata(None) for one in waiting], schema)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone in the archive: two that append to one file at once would lose the rows of one. Ends with the process, whatever ends it."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
