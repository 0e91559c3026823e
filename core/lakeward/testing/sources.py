"""What every source promises."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakeward.components import ROW, Batch, Position, Source
from lakeward.testing.rows import Row, ascends, assert_same_rows, values

LIMITS = (1, 3, 7, 100_000)
RESUMES = 20  # positions tried for each limit, spread over the input, so that a large input stays quick
ENDLESS = 10_000  # batches; no input of a contract test has so many
SIDE_FILES = ("-wal", "-shm")  # SQLite makes them when it reads


class SourceContract:
    """Subclass it as `class TestMine(SourceContract)`, say how to make the source, and each promise below becomes a test."""

    def make(self, tmp_path: Path) -> Source:
        """A fresh source. Makes its input under `tmp_path` the first time, ten to a hundred rows; the same when called again."""
        raise NotImplementedError

    def while_suspended(self, tmp_path: Path) -> None:
        """Called while a read is suspended at a yield: try what a held lock would prevent, such as writing a row behind the others."""

    # -- promises ------------------------------------------------------------------------------------------------------

    def test_schema_starts_with_the_row_key(self, tmp_path: Path) -> None:
        """The first column of the schema is `_row` of type int64."""
        with closing(self.make(tmp_path)) as source:
            first = source.schema().field(0)
        assert (first.name, first.type) == (ROW, pa.int64()), f"the first column of schema() is {first}, not {ROW}: int64"

    def test_every_batch_has_the_schema(self, tmp_path: Path) -> None:
        """The rows of each batch have exactly the schema that `schema` announced."""
        with closing(self.make(tmp_path)) as source:
            schema = source.schema()
        for number, batch in enumerate(self._all(tmp_path)):
            assert batch.rows.schema.equals(schema), f"batch {number} has the schema\n{batch.rows.schema}\nand schema() is\n{schema}"

    def test_row_keys_ascend_in_each_batch(self, tmp_path: Path) -> None:
        """`_row` is never NULL and strictly ascending within a batch."""
        for number, batch in enumerate(self._all(tmp_path)):
            assert not batch.rows.column(ROW).null_count, f"batch {number} has NULL in {ROW}"
            assert ascends(batch.rows), f"{ROW} of batch {number} does not ascend"

    def test_row_keys_are_unique(self, tmp_path: Path) -> None:
        """(origin, epoch, `_row`) names one row of the whole input."""
        counts = Counter((batch.origin, batch.epoch, key) for batch in self._all(tmp_path) for key in _keys(batch))
        twice = [key for key, count in counts.items() if count > 1]
        assert not twice, f"{len(twice)} keys (origin, epoch, {ROW}) come again, first {twice[0]}"

    def test_batches_hold_at_most_the_limit(self, tmp_path: Path) -> None:
        """No batch has more rows than the limit that was asked for."""
        for limit in LIMITS:
            longest = max(batch.rows.num_rows for batch in self._all(tmp_path, limit=limit))
            assert longest <= limit, f"a batch of {longest} rows for a limit of {limit}"

    def test_limit_does_not_change_the_rows(self, tmp_path: Path) -> None:
        """The same rows of each input (`origin`) come in the same order whatever the limit."""
        want = _rows(self._all(tmp_path, limit=LIMITS[-1]))
        for limit in LIMITS:
            assert_same_rows(_rows(self._all(tmp_path, limit=limit)), want, f"read with limit {limit}", ordered=True)

    def test_resumes_from_every_position_without_loss_or_repetition(self, tmp_path: Path) -> None:
        """A fresh source goes on after any position, also one that was written as JSON, with exactly the rows that follow."""
        for limit in LIMITS:
            batches = self._all(tmp_path, limit=limit)
            for index in range(0, len(batches), -(-len(batches) // RESUMES)):
                position = json.loads(json.dumps(batches[index].position))
                got = _rows(self._read(tmp_path, position, limit + 4))
                assert_same_rows(
                    got, _rows(batches[index + 1 :]), f"after the position {position}, read with limit {limit + 4}", ordered=True
                )

    def test_position_is_json_and_stays_as_it_was(self, tmp_path: Path) -> None:
        """A position is a JSON object, survives JSON unchanged, and later reading does not change it."""
        seen, texts = [], []
        with closing(self.make(tmp_path)) as source:
            for batch in _bounded(source.read(None, 3)):
                seen.append(batch.position)
                texts.append(_json(batch.position))
        for position, text in zip(seen, texts, strict=True):
            assert _json(position) == text, f"the position {text} became {_json(position)} while reading went on"

    def test_every_batch_moves_the_position(self, tmp_path: Path) -> None:
        """Two batches in a row have different positions, or a crash between them would repeat or lose rows."""
        for before, batch in pairwise(self._all(tmp_path, limit=3)):
            assert batch.position != before.position, f"two batches with the position {dict(batch.position)}"

    def test_reading_again_after_the_end_gives_nothing(self, tmp_path: Path) -> None:
        """After the last position there are no rows, neither for the same source nor for a fresh one."""
        last = self._all(tmp_path)[-1].position
        with closing(self.make(tmp_path)) as source:
            for _ in range(2):
                assert not _rows(_bounded(source.read(last, 7))), f"rows come after the last position {dict(last)}"

    def test_remembers_nothing_between_reads(self, tmp_path: Path) -> None:
        """One source that is asked again from the start gives the same rows again, also after a read that was left half way."""
        with closing(self.make(tmp_path)) as source:
            first = _rows(_bounded(source.read(None, 7)))
            left = source.read(None, 3)
            next(left)
            again = _rows(_bounded(source.read(None, 7)))
            _close(left)
        assert_same_rows(again, first, "the second read from the start", ordered=True)

    def test_suspended_read_holds_no_lock(self, tmp_path: Path) -> None:
        """What `while_suspended` tries works while a read is suspended, and the read loses nothing by it."""
        want = _rows(self._all(tmp_path))
        with closing(self.make(tmp_path)) as source:
            batches = source.read(None, 3)
            first = next(batches)
            try:
                self.while_suspended(tmp_path)
            except Exception as error:  # whatever the hook tried, it was in its way
                raise AssertionError(f"a suspended read is in the way of others: {error!r}") from error
            got = _rows([first, *_bounded(batches)])
        assert_same_rows(got[: len(want)], want, "the read that was suspended", ordered=True)

    def test_closing_twice_is_fine(self, tmp_path: Path) -> None:
        """`close` may be called twice, before any read and after one."""
        for reads in (0, 1):
            source = self.make(tmp_path)
            if reads:
                next(_bounded(source.read(None, 3)))
            source.close()
            _unharmed(source.close, "the second close()")

    def test_input_is_never_changed(self, tmp_path: Path) -> None:
        """The files under `tmp_path` have the same bytes after reading."""
        self.make(tmp_path).close()
        before = _files(tmp_path)
        self._all(tmp_path)
        after = _files(tmp_path)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        assert not changed, f"reading changed {', '.join(changed)}"

    # -- how -----------------------------------------------------------------------------------------------------------

    def _all(self, tmp_path: Path, limit: int = 7) -> list[Batch]:
        batches = self._read(tmp_path, None, limit)
        rows = sum(batch.rows.num_rows for batch in batches)
        assert rows >= 10, f"the source gives {rows} rows; its contract needs an input of at least 10"
        return batches

    def _read(self, tmp_path: Path, after: Position | None, limit: int) -> list[Batch]:
        with closing(self.make(tmp_path)) as source:
            return list(_bounded(source.read(after, limit)))


def _bounded(batches: Iterator[Batch]) -> Iterator[Batch]:
    for number, batch in enumerate(batches):
        assert isinstance(batch, Batch), f"read() gives {type(batch).__name__}, not Batch"
        assert number < ENDLESS, "read() does not end"
        yield batch


def _keys(batch: Batch) -> list[int | None]:
    parts = [batch.rows] if batch.rejected is None else [batch.rows, batch.rejected]
    return [key for part in parts for key in part.column(ROW).to_pylist()]


def _rows(batches: Iterator[Batch] | list[Batch]) -> list[Row]:
    """All rows with what their key needs, input by input, rejected ones too: they must be read exactly once like the others."""
    return list(chain.from_iterable(map(_keyed, sorted(batches, key=lambda batch: batch.origin))))


def _keyed(batch: Batch) -> Iterator[Row]:
    for port, part in (("rows", batch.rows), ("rejected", batch.rejected)):
        for row in values(part) if part is not None else []:
            yield (("port", port), ("origin", batch.origin), ("epoch", batch.epoch), *row)


def _json(position: Position) -> str:
    try:
        text = json.dumps(position, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the position {position!r} is not JSON: {error}") from error
    assert isinstance(position, dict), f"the position {position!r} is not a JSON object"
    assert json.loads(text) == position, f"the position {position!r} becomes {json.loads(text)!r} through JSON"
    return text


def _close(batches: Iterator[Batch]) -> None:
    close = getattr(batches, "close", None)  # a generator has it, another iterator need not
    if close:
        close()


def _unharmed(action: Any, what: str) -> None:
    try:
        action()
    except Exception as error:
        raise AssertionError(f"{what} raises {error!r}") from error


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(SIDE_FILES)
    }
