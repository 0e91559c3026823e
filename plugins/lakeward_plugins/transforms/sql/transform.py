"""The two classes: where each row went, and which rows a query fails on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import duckdb
import numpy as np
import pyarrow as pa
from attrs import define, field

from lakeward import ROW, OptionError, filtered, option, rejected
from lakeward_plugins.transforms.sql.session import OF_ROWS, Session, kind, sentence, session
from lakeward_plugins.transforms.sql.statement import Statement

MOST_BAD_ROWS = 100
"""Of one batch. Each costs about twenty queries to find; where there are more, the query is wrong rather than the rows."""


@define
class _Query:
    query: str = option(help="One SELECT of DuckDB over the table `batch`.")
    max_mb: float = option(256.0, help="Memory for DuckDB; a query that needs more fails.", unit="MB", minimum=16)
    _session: Session = field(init=False, repr=False, eq=False)
    _statement: Statement = field(init=False, repr=False, eq=False)
    row_wise: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        self._session = session(self.max_mb)
        self._statement = Statement(self.query, self._session, whole=not self.row_wise)

    def _check(self, rows: pa.RecordBatch) -> None:
        """What can be known without rows is said before the first one comes."""
        self._statement.check_columns(rows.schema.names)
        if not rows.num_rows:
            try:
                self._answer(pa.RecordBatch.from_arrays([pa.nulls(1, one.type) for one in rows.schema], schema=rows.schema))
            except OF_ROWS as error:
                raise OptionError("query", f"fails already on a row of NULLs: {sentence(error)}") from None

    def _answer(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        try:
            result = self._session.answer(self.query, rows, twice=not self.row_wise)
        except duckdb.OutOfMemoryException:
            raise OptionError("max_mb", f"the query needs more than {self.max_mb:g} MB; give it more, or set batch.rows lower") from None
        except duckdb.Error as error:
            if isinstance(error, OF_ROWS) and rows.num_rows:
                raise
            raise OptionError("query", sentence(error)) from None
        names = result.schema.names
        if twice := {name for name in names if names.count(name) > 1}:
            raise OptionError("query", f"gives two columns named {min(twice)!r}; give one another name with AS")
        return result


@define
class Sql(_Query):
    """A query that makes of each row one row or none, and looks at no other: columns are computed, renamed, left out, rows are removed.

    It selects `_row`, so that each row can be told apart. Rows that it leaves out are counted as filtered by `sql`. Rows that it
    fails on, such as text that is not the number it is cast to, are rejected, each with what DuckDB says of it.
    """

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = True

    def apply(self, batch: pa.RecordBatch) -> dict[str, pa.RecordBatch]:
        """The rows of the result in the order in which they came, and those that are left out or rejected."""
        rows = batch if ROW in batch.schema.names else _numbered(batch)
        self._check(rows)
        bad: dict[int, str] = {}
        result: pa.RecordBatch = pa.concat_batches(self._results(rows, 0, bad))  # type: ignore[attr-defined]  # missing in the stubs
        kept = self._kept(rows, result)
        failed = np.zeros(rows.num_rows, np.bool_)
        failed[list(bad)] = True
        ports = {"main": result if rows is batch else result.drop_columns([ROW])}
        if bad:
            ports["rejected"] = rejected(batch.filter(pa.array(failed)), "sql", pa.array([bad[place] for place in sorted(bad)]))
        removed = ~kept & ~failed
        if removed.any():
            ports["filtered"] = filtered(batch.filter(pa.array(removed)), "sql")
        return ports

    def _results(self, rows: pa.RecordBatch, first: int, bad: dict[int, str]) -> Iterator[pa.RecordBatch]:
        """The result in parts; rows that the query fails on are found by halves, and noted by their place."""
        try:
            yield self._answer(rows)
        except OF_ROWS as error:
            if len(bad) == MOST_BAD_ROWS:
                raise OptionError(
                    "query",
                    f"fails on more than {MOST_BAD_ROWS} rows of a batch ({kind(error)}); write TRY_CAST, or leave them out with WHERE",
                ) from None
            if rows.num_rows > 1:
                half = rows.num_rows // 2
                yield from self._results(rows.slice(0, half), first, bad)
                yield from self._results(rows.slice(half), first + half, bad)
            else:
                bad[first] = sentence(error)
                yield self._answer(rows.slice(0, 0))

    def _kept(self, rows: pa.RecordBatch, result: pa.RecordBatch) -> Any:
        """Which rows are in the result, each once and in their order, as `Statement` has seen to."""
        if ROW not in result.schema.names:
            raise OptionError("query", f"select {ROW} too, so that each row can be told apart: SELECT {ROW}, ... FROM batch")
        came, left = (np.asarray(each.column(ROW)) for each in (rows, result))
        kept = np.isin(came, left) if len(left) < len(came) else np.ones(len(came), np.bool_)
        if not np.array_equal(came[kept], left):
            raise OptionError("query", f"does not give each {ROW} once, as it was")
        return kept


@define
class SqlBatch(_Query):
    """A query over each batch as a whole: sums, windows, joins of the batch with itself, the first ten.

    What it gives depends on how rows are cut into batches, and that depends on when they were read. Use `window` for sums over time.
    Rows that have a `_row` in the result are in its order, unless the query has an ORDER BY. A batch that the query fails on stops the run.
    """

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = False

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The result; of no rows, no rows."""
        self._check(batch)
        try:
            result = self._answer(batch)
        except OF_ROWS as error:
            raise OptionError(
                "query", f"fails on a value of the batch ({kind(error)}); write TRY_CAST, or leave such rows out with WHERE"
            ) from None
        if ROW in result.schema.names:
            keys = np.asarray(result.column(ROW))
            known = np.asarray(batch.column(ROW)) if ROW in batch.schema.names else keys[:0]
            if result.schema.field(ROW).type != pa.int64() or len(np.unique(keys)) < len(keys) or not np.isin(keys, known).all():
                raise OptionError("query", f"{ROW} is the key of a row: give each once and as it is, or leave it out")
            if not self._statement.ordered:
                result = result.sort_by(ROW)
        return result if batch.num_rows else result.slice(0, 0)


def _numbered(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with a key, for rows that have none, such as windows."""
    return pa.RecordBatch.from_arrays([pa.array(np.arange(batch.num_rows)), *batch.columns], [ROW, *batch.schema.names])
