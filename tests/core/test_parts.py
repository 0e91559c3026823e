"""Rows that a sink will never take are found, and all others arrive once: a real state, a real spool, real files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import Encoding, Parcel, Receipt, Rejected, Retry
from lakeward.bell import Bell
from lakeward.components import Token
from lakeward.config import Limits
from lakeward.deliver import Courier
from lakeward.recording import Recording, Share
from lakeward.spool import Spool
from lakeward.state import State

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALL, KEYED = Limits(max_ratio=1.0), Encoding(row_key=True)


@define
class Picky:
    """Takes no parcel that has a bad row; each token once, whatever comes under it a second time."""

    bad: frozenset[int]
    names_them: bool | int = False
    """Say which rows are bad; or the first so many of them."""
    flaky: bool = False
    """Fail the first parcels once before looking at them."""
    encoding: Encoding = KEYED
    calls: int = 0
    seen: dict[Token, str] = field(factory=dict)
    taken: list[tuple[Token, list[int]]] = field(factory=list)

    def deliver(self, parcel: Parcel) -> Receipt:
        digest = hashlib.sha256(parcel.path.read_bytes()).hexdigest()
        assert digest == parcel.sha256
        first_time = parcel.token not in self.seen
        assert self.seen.setdefault(parcel.token, digest) == digest, "a token never stands for other bytes"
        if self.flaky and first_time and len(self.seen) <= 6:  # as many as the budget has at once
            raise Retry("again", 0)
        self.calls += 1
        ids = pq.read_table(parcel.path)["id"].to_pylist()
        assert len(ids) == parcel.rows
        places = [place for place, number in enumerate(ids) if number in self.bad]
        if places:
            named = places if self.names_them is True else places[: int(self.names_them)]
            raise Rejected("too odd", named)
        self.taken.append((parcel.token, ids))
        return Receipt("x")

    def close(self) -> None: ...

    def ids(self) -> list[int]:
        return [number for _, ids in self.taken for number in ids]


@contextmanager
def desk(folder: Path, rows: int, *sinks: str, batches: int = 1, encoding: Encoding = KEYED) -> Iterator[tuple[State, Spool]]:
    """Batches of rows 0 to `rows`, spooled for some sinks that share their file."""
    with State.hold(folder) as state:
        spool = Spool(folder / "spool")
        for sequence in range(1, batches + 1):
            numbers = pa.array(range((sequence - 1) * rows, sequence * rows))
            file = spool.write(f"{sequence}", pa.RecordBatch.from_pydict({"_row": numbers, "id": numbers}), encoding, NOW)
            shares = [Share(sink, file.name, rows, file.bytes, file.sha256) for sink in sinks]
            totals = {("spooled", sink): rows for sink in sinks}
            state.record(Recording(sequence, 3, {"row": sequence}, {}, shares, [], totals, origin="a.db"))
        yield state, spool


def deliver_all(state: State, spool: Spool, sink: Picky, name: str = "out", limits: Limits = ALL) -> Courier:
    """What the worker of a run does, until nothing is left or it gives up."""
    bell = Bell()
    courier = Courier(name, sink, state, spool, "p", bell, lambda *_: None, False, limits)
    pause = courier._news.wait

    def wait(seconds: float | None = None) -> bool:
        if seconds is None:  # for more parcels, which will not come
            courier.leave()
        return pause(seconds)

    courier._news.wait = wait  # type: ignore[method-assign]
    courier.run()
    bell.close()
    return courier


def assert_exact(state: State, spool: Spool, sink: Picky, rows: int, name: str = "out") -> None:
    """Each good row once and in order, each bad one a dead letter; nothing is left; no token twice; newer tokens have larger numbers."""
    assert sink.ids() == [number for number in range(rows) if number not in sink.bad]
    letters = state.letters.find(-1, "stage = ?", f"sink {name}")
    assert sorted(letter["row_low"] for letter in letters) == sorted(sink.bad)
    assert {(letter["origin"], letter["epoch"], letter["detail"]) for letter in letters} <= {("a.db", 3, "too odd")}
    tokens = [token for token, _ in sink.taken]
    assert len({token.name for token in sink.seen}) == len(sink.seen)
    assert sorted({token.number for token in tokens}) == [token.number for token in tokens]
    totals = state.totals()
    assert (totals.get("delivered", {}).get(name, 0), totals.get("refused", {}).get(name, 0)) == (rows - len(sink.bad), len(sink.bad))
    assert name not in state.waiting()


CASES = st.integers(1, 100).flatmap(lambda rows: st.tuples(st.just(rows), st.frozensets(st.integers(0, rows - 1), max_size=6)))


@given(CASES, st.booleans())
@settings(max_examples=12, deadline=None)
def test_bad_rows_that_are_not_named_are_found_by_halves(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[int, frozenset[int]], flaky: bool
) -> None:
    rows, bad = case
    sink = Picky(bad, flaky=flaky)
    with desk(tmp_path_factory.mktemp("state"), rows, "out") as (state, spool):
        assert deliver_all(state, spool, sink).failure == ""
        assert_exact(state, spool, sink, rows)
        assert sink.calls <= 1 + 2 * len(bad) * math.ceil(math.log2(rows) if rows > 1 else 0)
        assert list(spool.folder.iterdir()) == []


@given(CASES, st.booleans() | st.integers(1, 3), st.booleans())
@settings(max_examples=12, deadline=None)
def test_bad_rows_that_are_named_are_taken_out_and_the_others_go_on_together(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[int, frozenset[int]], names: bool | int, flaky: bool
) -> None:
    rows, bad = case
    sink = Picky(bad, names, flaky=flaky)
    with desk(tmp_path_factory.mktemp("state"), rows, "out") as (state, spool):
        assert deliver_all(state, spool, sink).failure == ""
        assert_exact(state, spool, sink, rows)
        if names is True:
            assert sink.calls <= 2


def test_positions_that_are_not_in_the_parcel_name_nothing(tmp_path: Path) -> None:
    class Confused(Picky):
        def deliver(self, parcel: Parcel) -> Receipt:
            try:
                return Picky.deliver(self, parcel)
            except Rejected as error:
                raise Rejected(str(error), [-1, parcel.rows, 10**9]) from None

    sink = Confused(frozenset({3}))
    with desk(tmp_path, 8, "out") as (state, spool):
        deliver_all(state, spool, sink)
        assert_exact(state, spool, sink, 8)


def test_a_sink_that_takes_rows_one_by_one_tells_the_bad_ones_in_its_receipt(tmp_path: Path) -> None:
    class OneByOne(Picky):
        def deliver(self, parcel: Parcel) -> Receipt:
            ids = pq.read_table(parcel.path)["id"].to_pylist()
            self.taken.append((parcel.token, [number for number in ids if number not in self.bad]))
            return Receipt("x", {}, {place: "too odd" for place, number in enumerate(ids) if number in self.bad})

    sink = OneByOne(frozenset({2, 5}))
    with desk(tmp_path, 8, "out") as (state, spool):
        courier = deliver_all(state, spool, sink)
        assert_exact(state, spool, sink, 8)
        assert (courier.delivered, len(sink.taken)) == (6, 1)
    sink = OneByOne(frozenset(range(8)))
    with desk(tmp_path / "all", 8, "out") as (state, spool):
        assert "8 of 8 rows would become dead letters" in deliver_all(state, spool, sink, limits=Limits(0.05, 2)).failure
        assert (state.waiting(), state.letters.find()) == ({"out": (1, 8)}, [])


def test_another_sink_with_the_same_file_notices_nothing(tmp_path: Path) -> None:
    picky, other = Picky(frozenset({2, 5})), Picky(frozenset())
    with desk(tmp_path, 8, "out", "other") as (state, spool):
        deliver_all(state, spool, picky)
        assert_exact(state, spool, picky, 8)
        assert [path.name for path in spool.folder.iterdir()] == ["1.parquet"]
        deliver_all(state, spool, other, "other")
        assert [(token.part, ids) for token, ids in other.taken] == [(None, list(range(8)))]
        assert list(spool.folder.iterdir()) == []


def test_parts_have_the_columns_and_the_encoding_of_their_parcel(tmp_path: Path) -> None:
    class Looks(Picky):
        def deliver(self, parcel: Parcel) -> Receipt:
            file = pq.ParquetFile(parcel.path)
            assert file.schema_arrow.names == ["id", "inserted"]
            assert file.metadata.row_group(0).column(0).compression == "ZSTD"
            assert set(file.read()["inserted"].to_pylist()) == {NOW}
            return Picky.deliver(self, parcel)

    encoding = Encoding("zstd", inserted_at="inserted")
    sink = Looks(frozenset({2}), encoding=encoding)
    with desk(tmp_path, 4, "out", encoding=encoding) as (state, spool):
        assert deliver_all(state, spool, sink).failure == ""
        (letter,) = state.letters.find()
        assert (sink.ids(), letter["row_low"], letter["origin"]) == (
            [0, 1, 3],
            None,
            f"p/out-{state.life}-0003-0000000001.0000002-0000003#0",
        )


# -- too many ----------------------------------------------------------------------------------------------------------

FEW = Limits(max_ratio=0.05, spare=10)


@pytest.mark.parametrize("names_them", [True, False])
def test_a_parcel_that_is_bad_as_a_whole_waits_for_a_human(tmp_path: Path, names_them: bool) -> None:
    sink = Picky(frozenset(range(1000)), names_them)
    with desk(tmp_path, 1000, "out") as (state, spool):
        courier = deliver_all(state, spool, sink, limits=FEW)
        assert "rows would become dead letters, most of them from sink out (sink_rejected: too odd)" in courier.failure
        assert "--set dead_letters.max_ratio=1" in courier.failure
        dead = len(state.letters.find(-1))
        assert dead == (0 if names_them else 10)
        assert state.waiting()["out"][1] == 1000 - dead
        assert sink.calls <= 40
        assert state.troubles() == {"sink out": courier.failure}
        deliver_all(state, spool, sink, limits=FEW)
        assert len(state.letters.find(-1)) == dead, "the next run does not go on where this one was stopped"
        sink.bad = frozenset()  # the table was mended
        assert (deliver_all(state, spool, sink, limits=FEW).failure, state.waiting(), state.troubles()) == ("", {}, {})
        assert sorted([*sink.ids(), *(letter["row_low"] for letter in state.letters.find(-1))]) == list(range(1000))


def test_too_many_are_accepted_when_a_person_says_so(tmp_path: Path) -> None:
    sink = Picky(frozenset(range(0, 1000, 4)), True)
    with desk(tmp_path, 1000, "out") as (state, spool):
        assert deliver_all(state, spool, sink, limits=FEW).failure.startswith("250 of 1,000 rows would become dead letters")
        deliver_all(state, spool, sink, limits=Limits(1.0, 10))
        assert_exact(state, spool, sink, 1000)


def test_bad_rows_here_and_there_in_a_large_parcel_are_not_too_many(tmp_path: Path) -> None:
    sink = Picky(frozenset(range(0, 2000, 170)))  # less than one in a hundred, but more than the spare ones
    with desk(tmp_path, 2000, "out") as (state, spool):
        assert deliver_all(state, spool, sink, limits=FEW).failure == ""
        assert_exact(state, spool, sink, 2000)


def test_letters_without_room_are_not_written_and_their_rows_wait(tmp_path: Path) -> None:
    sink = Picky(frozenset({1, 2}), True)
    with desk(tmp_path, 4, "out") as (state, spool):
        courier = deliver_all(state, spool, sink, limits=Limits(1.0, 100, 0.000_01))
        assert "the dead letters would fill more than 1e-05 MB" in courier.failure
        assert (state.letters.find(), state.waiting()) == ([], {"out": (1, 4)})
        deliver_all(state, spool, sink)
        assert_exact(state, spool, sink, 4)


def test_room_comes_back_when_letters_are_discarded(tmp_path: Path) -> None:
    sink, room = Picky(frozenset({1, 5}), True), Limits(1.0, 100, 0.000_012)
    with desk(tmp_path, 4, "out", batches=2) as (state, spool):
        assert "the dead letters would fill" in deliver_all(state, spool, sink, limits=room).failure
        assert [letter["row_low"] for letter in state.letters.find()] == [1]
        with State.beside(tmp_path) as other:  # as the command does it beside a run
            assert (other.letters.discard([1], "not needed"), other.letters.discard([1], "twice")) == (1, 0)
        assert deliver_all(state, spool, sink, limits=room).failure == ""
        newer, older = state.letters.find()
        assert (newer["row_low"], older["status"], older["note"], older["payload"]) == (5, "discarded", "not needed", "")
