"""`SourceContract` fails for a source that is broken in just that way, and passes for one that is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from attrs import define

from lakeward import ROW, Batch
from lakeward.testing import SourceContract

Position = Mapping[str, Any]


@define
class Numbers:
    """Each line of a file is a number; the position is the count of lines read."""

    path: Path

    def schema(self) -> pa.Schema:
        return pa.schema([(ROW, pa.int64()), ("number", pa.float64())])

    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        start = after["lines"] if after else 0
        while lines := self.lines()[start : start + limit]:
            rows = pa.record_batch([pa.array(range(start, start + len(lines))), pa.array(map(float, lines))], schema=self.schema())
            start += len(lines)
            yield Batch(rows, {"lines": start})

    def lines(self) -> list[str]:
        return self.path.read_text().split()

    def close(self) -> None:
        pass


class NumbersContract(SourceContract):
    component: type[Numbers] = Numbers

    def make(self, tmp_path: Path) -> Numbers:
        path = tmp_path / "numbers.txt"
        if not path.exists():
            path.write_text("\n".join(str(number / 4) for number in range(25)))
        return self.component(path)

    def while_suspended(self, tmp_path: Path) -> None:
        (tmp_path / "lock").touch(exist_ok=False)
        (tmp_path / "lock").unlink()


class TestNumbers(NumbersContract):
    """The source that keeps every promise."""


def changed(change: Callable[[Batch], Batch], after_rows: int = -1) -> Callable[..., Iterator[Batch]]:
    def read(self: Any, after: Position | None, limit: int) -> Iterator[Batch]:
        for batch in Numbers.read(self, after, limit):
            yield change(batch) if batch.position["lines"] > after_rows else batch

    return read


class WithoutRowKey(Numbers):
    def schema(self) -> pa.Schema:
        return pa.schema([("number", pa.float64())])


class ChangesItsSchema(Numbers):
    read = changed(lambda batch: Batch(batch.rows.set_column(1, "number", batch.rows["number"].cast("float32")), batch.position), 15)


class Descends(Numbers):
    read = changed(lambda batch: Batch(batch.rows.take(pa.array(range(batch.rows.num_rows)[::-1])), batch.position))


class StartsKeysAgain(Numbers):
    read = changed(lambda batch: Batch(batch.rows.set_column(0, ROW, pa.array(range(batch.rows.num_rows))), batch.position))


class IgnoresTheLimit(Numbers):
    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        return super().read(after, 10)


class LosesARowOfSeven(Numbers):
    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        for batch in super().read(after, limit):
            yield Batch(batch.rows.slice(0, 6) if limit == 7 else batch.rows, batch.position)


class SkipsARowOnResume(Numbers):
    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        return super().read(after and {"lines": after["lines"] + 1}, limit)


class RepeatsARowOnResume(Numbers):
    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        return super().read(after and {"lines": after["lines"] - 1}, limit)


class KeepsItsPlaceInMemory(Numbers):
    given = 0

    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        for batch in super().read({"lines": self.given}, limit):
            type(self).given = batch.position["lines"]
            yield batch
        type(self).given = 0


class PositionIsADate(Numbers):
    read = changed(lambda batch: Batch(batch.rows, {"lines": batch.position["lines"], "at": datetime(2024, 1, 1, tzinfo=UTC)}))


class PositionIsATuple(Numbers):
    read = changed(lambda batch: Batch(batch.rows, {"lines": (batch.position["lines"],)}))


class SharesOnePosition(Numbers):
    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        shared: dict[str, Any] = {}
        for batch in super().read(after, limit):
            shared.update(batch.position)
            yield Batch(batch.rows, shared)


class StandsStill(Numbers):
    read = changed(lambda batch: Batch(batch.rows, {"lines": batch.position["lines"] // 10 * 10}))


class NeverEnds(Numbers):
    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        while True:
            yield Batch(pa.RecordBatch.from_pylist([], self.schema()), {"lines": 0})


class GivesTheLastRowAgain(Numbers):
    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        return super().read(after and {"lines": min(after["lines"], 24)}, limit)


class RemembersWhatItGave(Numbers):
    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        given = self.__dict__.setdefault("given", set())
        for batch in super().read(after, limit):
            fresh = [key not in given for key in batch.rows[ROW].to_pylist()]
            given.update(batch.rows[ROW].to_pylist())
            yield Batch(batch.rows.filter(pa.array(fresh)), batch.position)


class HoldsALock(Numbers):
    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        lock = self.path.with_name("lock")
        lock.touch()
        yield from super().read(after, limit)
        lock.unlink()


class ClosesOnce(Numbers):
    def close(self) -> None:
        assert not self.__dict__.setdefault("closed", False)
        self.__dict__["closed"] = True


class MarksWhatItRead(Numbers):
    def lines(self) -> list[str]:
        lines = super().lines()
        self.path.write_text("\n".join(lines) + "\n")
        return lines


BROKEN: list[tuple[type[Numbers], str, str]] = [
    (WithoutRowKey, "test_schema_starts_with_the_row_key", "number: double>, not _row: int64"),
    (ChangesItsSchema, "test_every_batch_has_the_schema", "batch 2 has the schema"),
    (Descends, "test_row_keys_ascend_in_each_batch", "does not ascend"),
    (StartsKeysAgain, "test_row_keys_are_unique", "7 keys .* come again, first \\('', 0, 0\\)"),
    (IgnoresTheLimit, "test_batches_hold_at_most_the_limit", "a batch of 10 rows for a limit of 1"),
    (LosesARowOfSeven, "test_limit_does_not_change_the_rows", "read with limit 7: 22 rows instead of 25"),
    (SkipsARowOnResume, "test_resumes_from_every_position_without_loss_or_repetition", "1 missing"),
    (RepeatsARowOnResume, "test_resumes_from_every_position_without_loss_or_repetition", "1 too many"),
    (KeepsItsPlaceInMemory, "test_resumes_from_every_position_without_loss_or_repetition", "too many"),
    (PositionIsADate, "test_position_is_json_and_stays_as_it_was", "is not JSON"),
    (PositionIsATuple, "test_position_is_json_and_stays_as_it_was", "through JSON"),
    (SharesOnePosition, "test_position_is_json_and_stays_as_it_was", "while reading went on"),
    (StandsStill, "test_every_batch_moves_the_position", "two batches with the position"),
    (NeverEnds, "test_reading_again_after_the_end_gives_nothing", "does not end"),
    (GivesTheLastRowAgain, "test_reading_again_after_the_end_gives_nothing", "rows come after the last position"),
    (RemembersWhatItGave, "test_remembers_nothing_between_reads", "25 missing"),
    (HoldsALock, "test_suspended_read_holds_no_lock", "in the way of others"),
    (ClosesOnce, "test_closing_twice_is_fine", "second close"),
    (MarksWhatItRead, "test_input_is_never_changed", "changed numbers.txt"),
]


@pytest.mark.parametrize(("component", "promise", "says"), BROKEN)
def test_catches_a_broken_source(component: type[Numbers], promise: str, says: str, tmp_path: Path) -> None:
    suite = NumbersContract()
    suite.component = component
    with pytest.raises(AssertionError, match=says):
        getattr(suite, promise)(tmp_path)


def test_every_promise_is_broken_by_some_source() -> None:
    assert {promise for _, promise, _ in BROKEN} == {name for name in dir(SourceContract) if name.startswith("test_")}


def test_refuses_an_input_that_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "numbers.txt").write_text("1 2 3")
    with pytest.raises(AssertionError, match="gives 3 rows; its contract needs an input of at least 10"):
        NumbersContract().test_row_keys_are_unique(tmp_path)
