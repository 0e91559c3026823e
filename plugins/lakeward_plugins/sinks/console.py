"""Rows on standard output, for people and for pipes while a pipeline is being made.

The console is for people; it promises nothing after a crash: a parcel that is delivered again after a restart is printed again.
Within one process the same token twice in a row prints once.
"""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, field

from lakeward import Encoding, OptionError, Parcel, Receipt, Refused, option

if TYPE_CHECKING:
    from typing import TextIO

WIDEST = 40  # characters of a cell in a table; longer ones are cut so that a row stays on a line or two
Odd = Callable[[float], Any]
PIECE = 1_000  # rows that are Python objects at one time


@define
class ConsoleSink:
    """Prints parcels as aligned tables, or as JSON with one object a line.

    JSON has ISO timestamps, base64 for bytes, and null for NaN and infinities, which JSON does not have.
    Rows beyond `limit` are counted, in the table or for JSON on standard error. In a table, long texts are cut and control
    characters are shown as escapes.
    """

    format: Literal["table", "json"] = option("table", help="`table` to read, `json` to pipe into other programs.")
    limit: int | None = option(20, help="Rows of each parcel to print; none means all.", unit="rows", minimum=0)
    columns: list[str] = option(factory=list, help="Columns to print, in this order; left out, all of them.")
    row_key: bool = option(False, help="Print the row key, the column `_row`, too.")
    _printed: str = field(init=False, default="")

    @property
    def encoding(self) -> Encoding:
        """Uncompressed would save nothing: the file is shared with sinks that take the default."""
        return Encoding(row_key=self.row_key)

    def probe(self, schema: pa.Schema) -> str:
        """What would be printed; `OptionError` when a column is not there."""
        lost = [name for name in self.columns if name not in schema.names]
        if lost:
            raise OptionError("columns", f"no column {lost[0]!r}; columns are {', '.join(schema.names)}")
        rows = "all rows" if self.limit is None else f"up to {self.limit} rows"
        return f"would print {rows} of each parcel as {self.format}"

    def deliver(self, parcel: Parcel) -> Receipt:
        """Print the parcel, unless it was the last one printed."""
        shown = parcel.rows if self.limit is None else min(self.limit, parcel.rows)
        if str(parcel.token) != self._printed:
            try:
                self._print(parcel, shown)
            except BrokenPipeError as error:
                raise Refused("standard output was closed by the program that read it; run again without that pipe") from error
        self._printed = str(parcel.token)
        return Receipt("standard output", {"shown": shown})

    def close(self) -> None:
        """Nothing is held open."""

    def _print(self, parcel: Parcel, shown: int) -> None:
        more = parcel.rows - shown
        batches = self._batches(parcel, shown)
        if self.format == "json":
            for row in chain.from_iterable(_rows(batch, odd=lambda _: None) for batch in batches):
                _say(json.dumps(row, ensure_ascii=False, allow_nan=False))
            if more:
                _say(f"{parcel.token}: {more} more rows are not shown (limit: {self.limit})", sys.stderr)
        else:
            _say(f"{parcel.token.sink}  {parcel.token}  {parcel.rows} rows")
            for batch in batches:
                _print_table(batch)
            if more:
                _say(f"... and {more} more")
        sys.stdout.flush()

    def _batches(self, parcel: Parcel, rows: int) -> Iterator[pa.RecordBatch]:
        """The first `rows` rows, with the columns asked for."""
        for batch in parcel.batches(PIECE):
            lost = [name for name in self.columns if name not in batch.schema.names]
            if lost:
                raise Refused(f"columns: no column {lost[0]!r}; columns are {', '.join(batch.schema.names)}")
            if not rows:
                return
            yield (batch.select(self.columns) if self.columns else batch).slice(0, rows)
            rows -= min(rows, batch.num_rows)


def _say(text: str, out: TextIO | None = None) -> None:
    out = out or sys.stdout
    encoding = out.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=out)  # a terminal that is not UTF-8 must not end the run


def _print_table(batch: pa.RecordBatch) -> None:
    names = [_cell(name) for name in batch.schema.names]
    rows = [[_cell(value) for value in row.values()] for row in _rows(batch, odd=str)]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    right = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in batch.schema.types]
    for row in (names, ["-" * width for width in widths], *rows):
        cells = [text.rjust(width) if number else text.ljust(width) for text, width, number in zip(row, widths, right, strict=True)]
        _say("  ".join(cells).rstrip())


def _cell(value: Any) -> str:
    """One line of printable text: what a sensor wrote must not move the cursor."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[: WIDEST + 1])
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _rows(batch: pa.RecordBatch, odd: Odd) -> list[dict[str, Any]]:
    """Rows of what JSON knows; `odd` says what becomes of NaN and infinities."""
    columns = [_readable(column, odd) for column in batch.columns]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _readable(column: pa.Array[Any], odd: Odd) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        return _iso(column).to_pylist()
    if pa.types.is_time(column.type):
        return column.cast(pa.string()).to_pylist()  # nanoseconds have no Python object
    if pa.types.is_duration(column.type):
        return [None if count is None else f"{count}{column.type.unit}" for count in column.cast(pa.int64()).to_pylist()]
    return [_plain(value, odd) for value in column.to_pylist()]


def _iso(column: pa.Array[Any]) -> pa.Array[Any]:
    """ISO 8601, in UTC with a Z when the column has a time zone. Needs no time zone database."""
    local = column.cast(pa.timestamp(column.type.unit, "UTC")).view(pa.timestamp(column.type.unit)) if column.type.tz else column
    text = pc.replace_substring(local.cast(pa.string()), " ", "T")
    return pc.binary_join_element_wise(text, pa.array(["Z"] * len(text)), pa.array([""] * len(text))) if column.type.tz else text


def _plain(value: Any, odd: Odd) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else odd(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, odd) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, odd) for inner in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
