"""Rows of Parquet files, for backfills and replays.

Files are read in the order of their names, each once: the position says how far the file in hand has been read, and which files are
done. A file that comes later is read then, wherever its name sorts. The key of a row is its number in its file, so a file must
not change once it is there; move it into the folder when it is whole.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from attrs import asdict, define, evolve, field, frozen

from lakeward import ROW, Batch, OptionError, Refused, Retry, option
from lakeward.wording import first_line

BUFFER = 2**20  # bytes of a column read at once; otherwise whole row groups are held, which may be the whole file
MARK = 8  # characters


@define
class ParquetSource:
    """Reads one Parquet file, all files below a folder, or those that match a pattern; new ones when they appear."""

    path: Path = option(
        help="A file, a folder (all *.parquet below it) or a pattern such as `lake/2024-*.parquet`; not names that begin with . or _"
    )
    columns: list[str] | None = option(None, help="The columns to read; left out, all.")
    _schema: pa.Schema | None = field(init=False, default=None)

    def schema(self) -> pa.Schema:
        """`_row`, then the columns of the first file, which all others must have too."""
        if self._schema is None:
            folder, files = _files(self.path)
            if not files:
                raise OptionError("path", f"no Parquet files in {self.path}" if os.path.isdir(folder) else f"{folder} does not exist")  # noqa: PTH112
            path = next(iter(files.values()))
            try:
                with _opened(path) as file:
                    self._schema = _chosen(file.schema_arrow, self.columns, path)
            except (Retry, Refused) as error:
                raise OptionError("path", str(error)) from error
        return self._schema

    def read(self, after: Mapping[str, Any] | None, limit: int) -> Iterator[Batch]:
        """Batches of one file each."""
        schema, place = self.schema(), _place(after)
        folder, files = _files(self.path)
        if not folder.is_dir():
            raise Retry(f"{folder} is gone; waiting for it to come back")
        for name in place.left(files):
            with _opened(files[name]) as file:
                total = file.metadata.num_rows
                start = place.rows_of(name, total)
                _must_match(file.schema_arrow, schema, self.columns, files[name])
                for first, rows in _rows(file, schema, start, limit):
                    place = place.at(name, first + rows.num_rows, total)
                    yield Batch(rows, asdict(place), origin=name)

    def close(self) -> None:
        """Nothing to give back: a file is closed when it has been read or its reading is given up."""


# -- where to go on ----------------------------------------------------------------------------------------------------


@frozen
class Place:
    """What a position says: so many rows of the file in hand are read, and the files before it."""

    file: str = ""
    row: int = 0
    of: int = 0
    done: str = ""
    """A mark for each file that was read before: whole names would make the position too long."""

    def left(self, names: Iterable[str]) -> list[str]:
        """The files that are not read yet, or not to the end, in their order."""
        half = [self.file] if self.row < self.of else []
        if not set(half) <= set(names):
            raise Refused(f"{self.file} is gone, and only {self.row} of its {self.of} rows were read; put it back")
        done = {self.done[at : at + MARK] for at in range(0, len(self.done), MARK)} | {_mark(self.file)}
        return half + [name for name in names if _mark(name) not in done]

    def rows_of(self, name: str, total: int) -> int:
        """How many rows of the file were read already."""
        if name != self.file:
            return 0
        if total != self.of:
            raise Refused(f"{name} had {self.of} rows when it was begun and has {total} now; files must not change")
        return self.row

    def at(self, name: str, row: int, of: int) -> Place:
        """The place after so many rows of a file."""
        if name == self.file or not self.file:
            return evolve(self, file=name, row=row, of=of)
        return Place(name, row, of, self.done + _mark(self.file))


def _mark(name: str) -> str:
    return urlsafe_b64encode(blake2b(name.encode(errors="surrogateescape"), digest_size=6).digest()).decode()


def _place(after: Mapping[str, Any] | None) -> Place:
    fields = {name: (after or {}).get(name, default) for name, default in asdict(Place()).items()}
    if set(after or {}) - set(fields) or any(type(value) is not type(getattr(Place(), name)) for name, value in fields.items()):
        raise Refused(
            f"{dict(after or {})} is not a position in Parquet files, which looks like {{'file': 'a.parquet', 'row': 5, 'of': 9}}"
        )
    return Place(**fields)


# -- files -------------------------------------------------------------------------------------------------------------


def _files(path: Path) -> tuple[Path, dict[str, Path]]:
    """The folder, and the files by their names below it, in order."""
    if os.path.isfile(path):  # noqa: PTH113  # unlike those of Path, these do not raise for a name that is too long
        return path.parent, {path.name: path}
    wild = next((index for index, part in enumerate(path.parts) if any(sign in part for sign in "*?[")), None)
    if os.path.isdir(path) or wild is None:  # noqa: PTH112
        folder, pattern = path, "**/*.parquet"
    else:
        folder, pattern = Path(*path.parts[:wild]), "/".join(path.parts[wild:])
    if not os.path.isdir(folder):  # noqa: PTH112
        return folder, {}
    found = {file.relative_to(folder): file for file in folder.glob(pattern) if file.is_file()}
    names = {name.as_posix(): file for name, file in found.items() if not any(map(_is_hidden, name.parts))}
    return folder, dict(sorted(names.items()))


def _is_hidden(part: str) -> bool:
    """By the custom of Spark and Hive: logs and files still being written, but not partitions such as `_day=1`."""
    return part.startswith(".") or (part.startswith("_") and "=" not in part)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
            yield file
    except FileNotFoundError as error:
        raise Retry(f"{path} is gone since the folder was listed") from error
    except (pa.ArrowException, OSError) as error:
        said = first_line(error, 1000)
        if "size is 0 bytes" in said or "magic bytes not found" in said:
            raise Retry(f"{path} is not a Parquet file, or still being written") from error
        raise Refused(f"{path} cannot be read: {said}") from error


def _rows(file: pq.ParquetFile, schema: pa.Schema, start: int, limit: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """From row `start` on, with the number of the first row; row groups before it are not even decoded."""
    names = schema.names[1:]
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    ends = np.cumsum(sizes, dtype=np.int64)
    group = int(np.searchsorted(ends, start, side="right"))
    first = int(ends[group - 1]) if group else 0
    for batch in file.iter_batches(limit, row_groups=list(range(group, len(sizes))), columns=names):
        skipped = min(max(start - first, 0), batch.num_rows)
        rows = batch.slice(skipped)
        first += skipped
        if rows.num_rows:
            keys = pa.array(np.arange(first, first + rows.num_rows, dtype=np.int64))
            yield first, pa.RecordBatch.from_arrays([keys, *(rows.column(name) for name in names)], schema=schema)
        first += rows.num_rows


# -- columns -----------------------------------------------------------------------------------------------------------


def _chosen(found: pa.Schema, columns: Sequence[str] | None, path: Path) -> pa.Schema:
    chosen = found.names if columns is None else columns
    if not chosen:
        raise OptionError("columns", "names no column; leave it out to read all" if columns is not None else f"{path} has no columns")
    for index, name in enumerate(chosen):
        if name not in found.names:
            close = get_close_matches(name, found.names, 1, 0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"columns are {', '.join(found.names)}"
            raise OptionError(f"columns[{index}]", f"no column {name!r} in {path}; {hint}")
        if name in chosen[:index] or found.names.count(name) > 1:
            raise OptionError("columns", f"{name!r} is there twice")
    if ROW in chosen:
        raise OptionError("columns", f"{path} has a column {ROW!r}, a name kept for row keys; choose the other columns with `columns`")
    return pa.schema([pa.field(ROW, pa.int64()), *(pa.field(name, found.field(name).type) for name in chosen)])


def _must_match(found: pa.Schema, schema: pa.Schema, columns: Sequence[str] | None, path: Path) -> None:
    wanted = schema.names[1:]
    for name in dict.fromkeys([*wanted, *(found.names if columns is None else ())]):
        here, before = [field.type for field in found if field.name == name], [schema.field(name).type] if name in wanted else []
        if here != before:
            words = [" and ".join(map(str, kinds)) or "not there" for kinds in (here, before)]
            raise Refused(f"{path}: column {name!r} is {words[0]}, and {words[1]} in the first file; read it in a pipeline of its own")
