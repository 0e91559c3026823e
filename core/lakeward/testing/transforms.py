"""What every transform promises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import cast

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lakeward.components import END_OF_INPUT, FILTERED, REJECTED, RESERVED_PORTS, ROW, Holding, Stateful, Transform
from lakeward.errors import OptionError
from lakeward.testing.outputs import Restart, TakenTwice, assert_each_row_once, collect, held_by, in_the_end, keys_of, ports_of, whole
from lakeward.testing.rows import Row, ascends, assert_same_rows, compact, nulls, to_bytes

EXTRA = "zz_extra"
QUICK = settings(
    max_examples=12, deadline=None, derandomize=True, report_multiple_bugs=False, suppress_health_check=[HealthCheck.differing_executors]
)
SINGLES = 100  # rows given one by one; the rest of a large sample follows in one piece


class TransformContract:
    """Subclass it as `class TestMine(TransformContract)`, say how to make the transform, and each promise below becomes a test."""

    keeps_unknown_columns = True
    """False for a row-wise transform that removes columns on purpose."""
    tolerance = 0.0
    """How far floats may differ, relatively, when rows are cut into other batches: sums of floats depend on their order."""
    upsert_by: tuple[str, ...] = ()
    """For a transform that gives out a thing again when more is known: its columns that say which thing it is."""
    revision: str = "revision"
    """With `upsert_by`, the column that grows each time; rows are compared as a table has them in the end, by the greatest."""

    def make(self) -> Transform:
        """A fresh transform."""
        raise NotImplementedError

    def rows(self) -> pa.RecordBatch:
        """At least 20 meaningful rows with `_row` ascending; some of each kind that the transform tells apart."""
        raise NotImplementedError

    # -- promises ------------------------------------------------------------------------------------------------------

    def test_ports_are_declared(self) -> None:
        """Rows leave only on declared or reserved ports."""
        transform = self.make()
        assert isinstance(transform.ports, tuple), f"ports is {transform.ports!r}, not a tuple of names"
        assert not set(transform.ports) & set(RESERVED_PORTS), f"{RESERVED_PORTS} are always there: do not declare them"
        outputs = [ports_of(transform.apply(self._sample()))]
        if isinstance(transform, Stateful):
            outputs.append(ports_of(transform.finish(END_OF_INPUT)))
        unknown = sorted({port for output in outputs for port in output} - {*transform.ports, *RESERVED_PORTS})
        assert not unknown, f"rows leave on {unknown}; declared are {transform.ports}"

    @pytest.mark.parametrize("size", [1, 7, 500])
    def test_batch_cuts_do_not_change_the_result(self, size: int) -> None:
        """The same rows in batches of 1, 7 or 500 give the same as in one batch, on every port."""
        self._assert_same_when_cut(_every(size, self._sample()))

    @given(cuts=st.lists(st.integers(0, 10_000), max_size=8))
    @example(cuts=[0, 10, 10])
    @QUICK
    def test_any_cut_gives_the_same_result(self, cuts: list[int]) -> None:
        """The same rows cut anywhere, with empty batches in between, give the same as in one batch."""
        self._assert_same_when_cut(cut % self._sample().num_rows for cut in cuts)

    def test_input_is_untouched(self) -> None:
        """The batch that was given holds the same bytes afterwards, also around a slice of it."""
        rows = self._sample()
        before = to_bytes(rows)
        self.make().apply(rows)
        assert to_bytes(rows) == before, "apply() changed its input"
        self.make().apply(rows.slice(3, rows.num_rows - 6))
        assert to_bytes(rows) == before, "apply() changed the batch that its input is a slice of"

    def test_slice_gives_the_same_as_its_rows_alone(self) -> None:
        """A batch that is a view into a larger one is read from its offset."""
        part = self._sample().slice(3)
        _assert_same(collect(self.make(), [part]), collect(self.make(), [compact(part)]), "a slice with an offset", ordered=True)

    def test_empty_batch_has_the_schemas_of_a_full_one(self) -> None:
        """The kernel learns the schema of every port from an empty batch; rows never change it."""
        rows = self._sample()
        transform = self.make()
        learned = ports_of(transform.apply(rows.slice(0, 0)))
        assert not any(part.num_rows for part in learned.values()), "an empty batch gives rows"
        missing = sorted(set(transform.ports) - learned.keys())
        assert not missing, f"an empty batch gives nothing on {missing}, so its schema cannot be learned"
        outputs = {"rows": transform.apply(rows), "one row": self.make().apply(rows.slice(0, 1))}
        with suppress(OptionError):  # NULLs may be refused as a whole
            outputs["NULLs"] = self.make().apply(nulls(rows))
        if isinstance(transform, Stateful):
            outputs["finish()"] = transform.finish(END_OF_INPUT)
        for what, output in outputs.items():
            for port, part in ports_of(output).items():
                same = port in RESERVED_PORTS or part.schema.equals(learned[port].schema)
                assert same, f"the port {port} has for {what} the schema\n{part.schema}\nand for an empty batch\n{learned[port].schema}"

    def test_odd_batches_lose_no_rows(self) -> None:
        """A batch of NULLs and a batch of one row are taken, or refused with `OptionError`."""
        rows = self._sample()
        for what, odd in {
            "a batch of NULLs": nulls(rows),
            "one row": rows.slice(0, 1),
            "one row of NULLs": nulls(rows.slice(0, 1)),
        }.items():
            try:
                output = whole(self.make(), odd)
            except OptionError:
                continue
            except Exception as error:
                raise AssertionError(f"{what}: apply() raises {error!r}") from error
            if self.make().row_wise:
                assert_each_row_once(output, odd, what)

    def test_each_row_leaves_exactly_once(self) -> None:
        """Row-wise: each `_row` that comes in leaves once, on a port, `rejected` or `filtered`."""
        transform = self._row_wise()
        rows = self._sample()
        assert_each_row_once(whole(transform, rows), rows, "the sample")

    def test_unknown_columns_pass_through(self) -> None:
        """Row-wise: a column that the transform does not know is on every port, with the values of its rows."""
        transform = self._row_wise()
        if not self.keeps_unknown_columns:
            pytest.skip("removes columns on purpose")
        rows = self._sample()
        keys = rows.column(ROW).to_pylist()
        output = ports_of(transform.apply(rows.append_column(EXTRA, pa.array([f"extra {key}" for key in keys]))))
        for port in sorted(output.keys() - set(RESERVED_PORTS)):
            part = output[port]
            assert EXTRA in part.schema.names, (
                f"the port {port} has lost the column {EXTRA}; set keeps_unknown_columns = False if it means to"
            )
            pairs = zip(part.column(ROW).to_pylist(), part.column(EXTRA).to_pylist(), strict=True)
            wrong = [pair for pair in pairs if pair[1] != f"extra {pair[0]}"]
            assert not wrong, f"the port {port} has {EXTRA} of other rows: {wrong[:3]}"

    def test_deterministic(self) -> None:
        """Two fresh instances give the same, row by row: clock and randomness come from the batch."""
        rows = self._sample()
        _assert_same(collect(self.make(), [rows]), collect(self.make(), [rows]), "a second instance", ordered=True)

    @pytest.mark.parametrize("size", [1, 7])
    def test_state_survives_a_restart_after_every_batch(self, size: int) -> None:
        """Stateful: a fresh instance that restores the state goes on as if nothing had happened."""
        self._assert_same_when("restarted", self._restart, size)

    @given(cuts=st.lists(st.integers(0, 10_000), max_size=8))
    @example(cuts=[0, 10, 10])
    @QUICK
    def test_any_cut_with_restarts_gives_the_same_result(self, cuts: list[int]) -> None:
        """Cut anywhere, with empty batches and a restart after every batch, the same rows give the same as in one batch."""
        rows, places = self._sample(), sorted(cut % self._sample().num_rows for cut in cuts)
        got, want = self._collect(_cut(rows, places), self._restart), self._collect([rows])
        _assert_same(got, want, f"cut at rows {places[:20]} and restarted", ordered=False, tolerance=self.tolerance)

    def test_a_batch_that_is_taken_again_counts_once(self) -> None:
        """Stateful: after a batch that could not be recorded the kernel copies the transform with `attrs.evolve` and restores its state.

        So whatever `apply` changes must be in the state, and in no option.
        """
        rows = self._stateful_sample()
        batches = _cut(rows, _every(7, rows))
        again = collect(cast(Transform, TakenTwice(self.make())), batches)
        _assert_same(again, collect(self.make(), batches), "each batch taken twice", ordered=False)

    def test_rows_held_back_are_told(self) -> None:
        """Row-wise with `held`: after each batch, rows in and held before are rows out and held after; a restart holds the same."""
        transform = self._row_wise()
        if not isinstance(transform, Holding):
            pytest.skip("holds no rows back")
        rows = self._stateful_sample()
        for batch in _cut(rows, _every(7, rows)):
            taken = keys_of([*held_by(transform), batch])
            output = ports_of(transform.apply(batch)).values()
            left = keys_of([*output, *held_by(transform)])
            assert left == taken, f"rows in and held before are {taken[:10]} ..., rows out and held after {left[:10]} ..."
            restarted = self._restart(transform)
            assert keys_of(held_by(restarted)) == keys_of(held_by(transform)), "a restart holds other rows"

    def test_restored_state_can_be_saved_again(self) -> None:
        """Stateful: the state of a restored instance is worth as much as the one it restored."""
        self._assert_same_when("restarted twice", lambda old: self._restart(self._restart(old)), 5)

    def test_asking_for_the_state_changes_nothing(self) -> None:
        """Stateful: the state is asked for after each batch, and the same instance goes on."""
        self._assert_same_when("asked for its state", _asked, 5)

    def test_rejected_rows_say_why(self) -> None:
        """Rows on `rejected` carry `_row`, a reason code in `_reason` and a text in `_detail`."""
        for part in self._on_port(REJECTED):
            lost = [name for name in (ROW, "_reason", "_detail") if name not in part.schema.names]
            assert not lost, f"rejected rows have no column {', '.join(lost)}: make them with rejected()"
            assert all(part.column("_reason").to_pylist()), "a rejected row has no reason"
            assert None not in part.column("_detail").to_pylist(), "a rejected row has NULL as detail"

    def test_filtered_rows_name_their_rule(self) -> None:
        """Rows on `filtered` carry `_row` and the name of the rule that removed them in `_rule`."""
        for part in self._on_port(FILTERED):
            lost = [name for name in (ROW, "_rule") if name not in part.schema.names]
            assert not lost, f"filtered rows have no column {', '.join(lost)}: make them with filtered()"
            assert all(part.column("_rule").to_pylist()), "a filtered row has no rule"

    # -- how -----------------------------------------------------------------------------------------------------------

    def _sample(self) -> pa.RecordBatch:
        rows = self.rows()
        assert rows.num_rows >= 20, f"rows() gives {rows.num_rows} rows; the contract needs at least 20"
        assert (ROW, pa.int64()) in zip(rows.schema.names, rows.schema.types, strict=True), f"rows() needs a column {ROW}: int64"
        assert ascends(rows), f"{ROW} of rows() must ascend"
        return rows

    def _stateful_sample(self) -> pa.RecordBatch:
        if not isinstance(self.make(), Stateful):
            pytest.skip("has no state")
        return self._sample()

    def _row_wise(self) -> Transform:
        transform = self.make()
        if not transform.row_wise:
            pytest.skip("not row-wise")
        return transform

    def _on_port(self, port: str) -> list[pa.RecordBatch]:
        rows = self._sample()
        parts = [ports_of(self.make().apply(rows)).get(port)]
        with suppress(OptionError):  # NULLs may be refused as a whole
            parts.append(ports_of(self.make().apply(nulls(rows))).get(port))
        return [part for part in parts if part is not None and part.num_rows]

    def _restart(self, old: Transform) -> Transform:
        fresh = self.make()
        fresh.apply(self._sample().slice(0, 0))  # the kernel learns the schemas before it restores
        if isinstance(old, Stateful) and isinstance(fresh, Stateful):
            state = old.state()
            assert isinstance(state, bytes), f"state() gives {type(state).__name__}, not bytes"
            fresh.restore(state)
        return fresh

    def _assert_same_when_cut(self, cuts: Iterable[int]) -> None:
        rows, places = self._sample(), sorted(cuts)
        transform = self.make()
        ordered = transform.row_wise and not isinstance(transform, Stateful)
        got, want = self._collect(_cut(rows, places)), self._collect([rows])
        _assert_same(got, want, f"cut at rows {places[:20]}", ordered=ordered, tolerance=self.tolerance)

    def _assert_same_when(self, what: str, between: Restart, size: int) -> None:
        """Exactly the same as without `between`: a state that rounds is a state that drifts."""
        rows = self._stateful_sample()
        batches = _cut(rows, _every(size, rows))
        _assert_same(collect(self.make(), batches, between), collect(self.make(), batches), f"{what} after every batch", ordered=False)

    def _collect(self, batches: Iterable[pa.RecordBatch], between: Restart = lambda old: old) -> Mapping[str, list[Row]]:
        return in_the_end(collect(self.make(), batches, between), self.upsert_by, self.revision)


def _assert_same(got: Mapping[str, list[Row]], want: Mapping[str, list[Row]], what: str, *, ordered: bool, tolerance: float = 0.0) -> None:
    for port in sorted(got.keys() | want.keys()):
        in_order = ordered and port not in RESERVED_PORTS  # those may be grouped by rule or reason
        assert_same_rows(got.get(port, []), want.get(port, []), f"port {port}, {what}", ordered=in_order, tolerance=tolerance)


def _cut(rows: pa.RecordBatch, places: Iterable[int]) -> list[pa.RecordBatch]:
    return [rows.slice(start, end - start) for start, end in pairwise([0, *places, rows.num_rows])]


def _every(size: int, rows: pa.RecordBatch) -> range:
    return range(size, min(SINGLES, rows.num_rows) if size == 1 else rows.num_rows, size)


def _asked(transform: Transform) -> Transform:
    assert isinstance(transform, Stateful)
    transform.state()
    return transform
