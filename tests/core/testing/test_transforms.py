"""`TransformContract` fails for a transform that is broken in just that way, and passes for one that is not."""

from __future__ import annotations

import inspect
import json
from datetime import datetime
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from attrs import define, field

from lakeward import ROW, filtered, rejected
from lakeward.testing import TransformContract
from lakeward.testing.rows import to_bytes

Output = dict[str, pa.RecordBatch]


@define
class Sort:
    """Hot readings on their own port; NULL is rejected, frost is filtered."""

    ports: ClassVar[tuple[str, ...]] = ("main", "hot")
    row_wise: ClassVar[bool] = True

    def apply(self, batch: pa.RecordBatch) -> Output:
        heat = batch["heat"]
        hot, frost, deep = (pc.fill_null(test, False) for test in (pc.greater(heat, 20.0), pc.less(heat, 0.0), pc.less(heat, -5.0)))
        main = pc.and_not(pc.and_not(pc.is_valid(heat), hot), frost)
        return {
            "main": batch.filter(main),
            "hot": batch.filter(hot),
            "rejected": rejected(batch.filter(pc.is_null(heat)), "null", "no heat"),
            "filtered": pa.concat_batches(
                [filtered(batch.filter(deep), "deep frost"), filtered(batch.filter(pc.and_not(frost, deep)), "frost")]
            ),
        }


@define
class Total:
    """Gives out each sensor's sum at the end."""

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = False
    sums: dict[str, float] = field(factory=dict, init=False)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        for sensor, heat in zip(batch["sensor"].to_pylist(), batch["heat"].to_pylist(), strict=True):
            self.sums[sensor] = self.sums.get(sensor, 0.0) + (heat or 0.0)
        return self.given({})

    def finish(self, watermark: datetime) -> pa.RecordBatch:
        return self.given(self.sums)

    def given(self, sums: dict[str, float]) -> pa.RecordBatch:
        return pa.record_batch({"sensor": pa.array(sums.keys(), pa.string()), "sum": pa.array(sums.values(), pa.float64())})

    def state(self) -> bytes:
        return json.dumps(list(self.sums.items())).encode()

    def restore(self, state: bytes) -> None:
        self.sums = dict(json.loads(state))


class ReadingsContract(TransformContract):
    component: Any = Sort

    def make(self) -> Any:
        return self.component()

    def rows(self) -> pa.RecordBatch:
        heat = [None if row % 7 == 6 else (row % 11) * 4.0 - 8.0 for row in range(40)]
        heats = np.array([np.nan if value is None else value for value in heat])
        column = pa.Array.from_buffers(pa.float64(), 40, [pa.array(heat).buffers()[0], pa.py_buffer(bytearray(heats.tobytes()))])
        return pa.record_batch({ROW: pa.array(range(100, 140)), "sensor": pa.array([f"s{row % 3}" for row in range(40)]), "heat": column})


class TestSort(ReadingsContract):
    """The stateless transform that keeps every promise."""


class TestTotal(ReadingsContract):
    """The stateful transform that keeps every promise."""

    component = Total


@define
class Behind(Sort):
    """Sorts a row when the next one is there, the last one at the end."""

    held: Any = field(init=False, default=None)

    def apply(self, batch: pa.RecordBatch) -> Output:
        known = batch if self.held is None else pa.concat_batches([self.held, batch])
        self.held = known.slice(max(known.num_rows - 1, 0))
        return super().apply(known.slice(0, max(known.num_rows - 1, 0)))

    def finish(self, watermark: datetime) -> Output:
        last, self.held = self.held, self.held.slice(1)
        return super().apply(last)

    def state(self) -> bytes:
        return to_bytes(self.held)

    def restore(self, state: bytes) -> None:
        with pa.ipc.open_stream(state) as reader:
            self.held = reader.read_next_batch()


class TestBehind(ReadingsContract):
    """The transform that holds a row back keeps every promise too."""

    component = Behind


class LosesTheLast(Behind):
    def finish(self, watermark: datetime) -> Output:
        return super().apply(self.held.slice(0, 0))


@define
class Counts:
    """Tells after each batch how many readings each sensor has by now."""

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = False
    counts: dict[str, int] = field(factory=dict, init=False)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        seen = batch["sensor"].to_pylist()
        for sensor in seen:
            self.counts[sensor] = self.counts.get(sensor, 0) + 1
        return self.given({sensor: self.counts[sensor] for sensor in dict.fromkeys(seen)})

    def finish(self, watermark: datetime) -> pa.RecordBatch:
        return self.given({})

    def given(self, counts: dict[str, int]) -> pa.RecordBatch:
        counted = pa.array(counts.values(), pa.int64())
        return pa.record_batch({"sensor": pa.array(counts.keys(), pa.string()), "count": counted, "revision": counted})

    def state(self) -> bytes:
        return json.dumps(list(self.counts.items())).encode()

    def restore(self, state: bytes) -> None:
        self.counts = dict(json.loads(state))


class TestCounts(ReadingsContract):
    """The transform that tells the same thing again, with a greater revision, keeps every promise too."""

    component = Counts
    upsert_by = ("sensor",)


def test_a_revision_that_does_not_grow_is_found() -> None:
    class Stuck(Counts):
        def given(self, counts: dict[str, int]) -> pa.RecordBatch:
            given = super().given(counts)
            return given.set_column(2, "revision", pa.repeat(0, given.num_rows))

    suite = TestCounts()
    suite.component = Stuck
    with pytest.raises(AssertionError, match=r"a revision of .* that does not grow"):
        suite.test_batch_cuts_do_not_change_the_result(7)


class UndeclaredPort(Sort):
    ports = ("main",)


class CountsInItsBatch(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        return super().apply(batch.append_column("number", pa.array(range(batch.num_rows), pa.int64())))


class EndsABatchEarly(Sort):
    """Only batches of a size that no fixed cut makes show it."""

    def apply(self, batch: pa.RecordBatch) -> Output:
        return super().apply(batch.slice(1) if 8 <= batch.num_rows < 20 else batch)


class ForgetsAtAnEmptyBatch(Total):
    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not batch.num_rows:
            self.sums.clear()
        return super().apply(batch)


class WritesIntoItsInput(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        output = super().apply(batch)
        np.frombuffer(batch["heat"].buffers()[1], np.float64)[:] += 1.0
        return output


class WritesBesideItsSlice(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        heat = np.frombuffer(batch["heat"].buffers()[1], np.float64)
        if batch.num_rows < len(heat):
            heat[0] += 1.0
        return super().apply(batch)


class ForgetsTheOffset(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        raw = pa.Array.from_buffers(pa.float64(), batch.num_rows, [None, batch["heat"].buffers()[1]]) if batch.num_rows else batch["heat"]
        return super().apply(batch.append_column("raw", raw))


class TypesFromTheRows(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        return super().apply(
            batch.append_column("note", pa.array([None] * batch.num_rows) if batch.num_rows else pa.array([], pa.string()))
        )


class LeavesOutEmptyPorts(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        return {port: rows for port, rows in super().apply(batch).items() if rows.num_rows}


class NullsHaveAnotherType(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        unknown = batch["heat"].null_count == batch.num_rows > 0
        return super().apply(
            batch.append_column("note", pa.array(["", *[""] * batch.num_rows][1:], pa.large_string() if unknown else pa.string()))
        )


class ChokesOnNulls(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        if batch.num_rows and batch["heat"].null_count == batch.num_rows:
            raise ZeroDivisionError("mean of nothing")
        return super().apply(batch)


class DropsNulls(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        return {port: rows for port, rows in super().apply(batch).items() if port != "rejected"}


class LosesRows(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        return super().apply(batch.filter(pc.not_equal(batch[ROW], 120)))


class GivesRowsTwice(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        output = super().apply(batch)
        return {**output, "hot": pa.concat_batches([output["hot"], output["main"]])}


class NumbersRowsAnew(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        return super().apply(batch.set_column(0, ROW, pa.array(range(batch.num_rows), pa.int64())))


class DropsTheRowKey(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        output = super().apply(batch)
        return {**output, "hot": output["hot"].select(["sensor", "heat"])}


class DropsUnknownColumns(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        return super().apply(batch.select([ROW, "sensor", "heat"]))


class ShufflesUnknownColumns(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        known = ("sensor", "heat", ROW)
        return super().apply(pa.record_batch({name: batch[name] if name in known else batch[name][::-1] for name in batch.schema.names}))


class Random(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        return super().apply(batch.append_column("noise", pa.array(np.random.default_rng().random(batch.num_rows))))


class ForgetsItsState(Total):
    def restore(self, state: bytes) -> None:
        pass


class StateIsText(Total):
    def state(self) -> Any:
        return super().state().decode()


class SavesOnlyWhatIsNew(Total):
    def restore(self, state: bytes) -> None:
        self.__dict__["restored"] = dict(json.loads(state))

    def finish(self, watermark: datetime) -> pa.RecordBatch:
        old = self.__dict__.get("restored", {})
        return self.given({sensor: self.sums.get(sensor, 0.0) + old.get(sensor, 0.0) for sensor in self.sums | old})


class StateTakesItAway(Total):
    def state(self) -> bytes:
        state = super().state()
        self.sums = {}
        return state


class ForgetsWhenNothingCame(Total):
    came = False

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        type(self).came = batch.num_rows > 0
        return super().apply(batch)

    def state(self) -> bytes:
        return super().state() if self.came else b"[]"


@define
class RemembersInAnOption(Total):
    seen: list[int] = field(factory=list)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self.seen.extend(batch[ROW].to_pylist())
        return super().apply(batch)

    def finish(self, watermark: datetime) -> pa.RecordBatch:
        return self.given({**self.sums, "rows": len(self.seen)})


class HoldsWhatItGave(Behind):
    def apply(self, batch: pa.RecordBatch) -> Output:
        output = super().apply(batch)
        self.held = pa.concat_batches([self.held, batch.slice(0, 1)])
        return output

    def finish(self, watermark: datetime) -> Output:
        self.held = self.held.slice(0, 1)
        return super().finish(watermark)


class RejectsWithoutReason(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        output = super().apply(batch)
        return {**output, "rejected": output["rejected"].drop_columns(["_reason"])}


class FiltersWithoutRule(Sort):
    def apply(self, batch: pa.RecordBatch) -> Output:
        output = super().apply(batch)
        return {**output, "filtered": output["filtered"].drop_columns(["_rule"])}


BROKEN: list[tuple[Any, str, str]] = [
    (UndeclaredPort, "test_ports_are_declared", "rows leave on \\['hot'\\]"),
    (CountsInItsBatch, "test_batch_cuts_do_not_change_the_result", "missing"),
    (EndsABatchEarly, "test_any_cut_gives_the_same_result", "1 missing"),
    (ForgetsAtAnEmptyBatch, "test_any_cut_gives_the_same_result", "missing"),
    (WritesIntoItsInput, "test_input_is_untouched", "changed its input"),
    (WritesBesideItsSlice, "test_input_is_untouched", "is a slice of"),
    (ForgetsTheOffset, "test_slice_gives_the_same_as_its_rows_alone", "a slice with an offset"),
    (TypesFromTheRows, "test_empty_batch_has_the_schemas_of_a_full_one", "note: null"),
    (LeavesOutEmptyPorts, "test_empty_batch_has_the_schemas_of_a_full_one", "nothing on \\['hot', 'main'\\]"),
    (NullsHaveAnotherType, "test_empty_batch_has_the_schemas_of_a_full_one", "for NULLs the schema"),
    (ChokesOnNulls, "test_odd_batches_lose_no_rows", "a batch of NULLs: .*mean of nothing"),
    (DropsNulls, "test_odd_batches_lose_no_rows", "a batch of NULLs: lost _row \\[100"),
    (LosesRows, "test_each_row_leaves_exactly_once", "lost _row \\[120\\]"),
    (LosesTheLast, "test_each_row_leaves_exactly_once", "lost _row \\[139\\]"),
    (GivesRowsTwice, "test_each_row_leaves_exactly_once", "lost _row \\[\\], too many"),
    (NumbersRowsAnew, "test_each_row_leaves_exactly_once", "too many \\[[0-9], "),
    (DropsTheRowKey, "test_each_row_leaves_exactly_once", "port hot has lost the column _row"),
    (DropsUnknownColumns, "test_unknown_columns_pass_through", "port hot has lost the column zz_extra"),
    (ShufflesUnknownColumns, "test_unknown_columns_pass_through", "of other rows"),
    (Random, "test_deterministic", "a second instance"),
    (ForgetsItsState, "test_state_survives_a_restart_after_every_batch", "restarted"),
    (StateIsText, "test_state_survives_a_restart_after_every_batch", "not bytes"),
    (ForgetsWhenNothingCame, "test_any_cut_with_restarts_gives_the_same_result", "and restarted"),
    (RemembersInAnOption, "test_a_batch_that_is_taken_again_counts_once", "each batch taken twice"),
    (HoldsWhatItGave, "test_rows_held_back_are_told", "rows out and held after \\[100, 100, "),
    (SavesOnlyWhatIsNew, "test_restored_state_can_be_saved_again", "restarted twice"),
    (StateTakesItAway, "test_asking_for_the_state_changes_nothing", "asked for its state"),
    (RejectsWithoutReason, "test_rejected_rows_say_why", "no column _reason"),
    (FiltersWithoutRule, "test_filtered_rows_name_their_rule", "no column _rule"),
]


@pytest.mark.parametrize(("component", "promise", "says"), BROKEN)
def test_catches_a_broken_transform(component: Any, promise: str, says: str) -> None:
    suite = ReadingsContract()
    suite.component = component
    test = getattr(suite, promise)
    with pytest.raises(AssertionError, match=says):
        test(7) if "size" in inspect.signature(test).parameters else test()


def test_every_promise_is_broken_by_some_transform() -> None:
    assert {promise for _, promise, _ in BROKEN} == {name for name in dir(TransformContract) if name.startswith("test_")}


def test_float_sums_may_differ_within_the_tolerance_and_no_further() -> None:
    class Sums(ReadingsContract):
        component = Total
        tolerance = 1e-9

        def rows(self) -> pa.RecordBatch:
            return pa.record_batch({ROW: range(30), "sensor": ["a"] * 30, "heat": [0.1] * 30})

    class AddsABit(Total):
        bit: ClassVar[float]

        def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            super().apply(batch)
            self.sums = {sensor: total * (1 + self.bit) for sensor, total in self.sums.items()}
            return self.given({})

    suite = Sums()
    suite.component = AddsABit
    AddsABit.bit = 1e-13
    suite.test_batch_cuts_do_not_change_the_result(1)
    AddsABit.bit = 1e-7
    with pytest.raises(AssertionError, match="1 missing"):
        suite.test_batch_cuts_do_not_change_the_result(1)


def test_refuses_a_sample_that_proves_nothing() -> None:
    class Short(ReadingsContract):
        def rows(self) -> pa.RecordBatch:
            return super().rows().slice(0, 5)

    with pytest.raises(AssertionError, match="at least 20"):
        Short().test_deterministic()
