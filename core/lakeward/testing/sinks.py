"""What every sink promises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakeward.components import ROW, Encoding, Parcel, Probing, Receipt, Sink
from lakeward.errors import OptionError, Refused, Rejected
from lakeward.testing.hostile import EXTREMES, NAMES, TYPES
from lakeward.testing.parcels import make_parcel
from lakeward.testing.rows import assert_same_rows, values
from lakeward.testing.watching import whenever_files_change

PLAIN = (str, int, float, bool)
MANY = 2_000  # rows; enough for a sink that writes in pieces to show one
TOLD = 20  # characters of a long column name that its refusal must show


class SinkContract:
    """Subclass it as `class TestMine(SinkContract)`, say how to make and read the sink, and each promise below becomes a test.

    `tmp_path` is a folder of the sink's own: parcels are elsewhere.
    """

    unsupported: tuple[str, ...] = ()
    """Keys of `hostile.TYPES` and `hostile.EXTREMES` that the sink refuses, clearly. All others must arrive."""
    ordered = False
    """True when the order of rows is part of what the sink promises."""
    watched = True
    """False when nobody can read while the sink writes, such as in a file that is locked for the time being."""

    def make(self, tmp_path: Path) -> Sink:
        """A fresh sink. Called again with the same folder it is the same sink after a restart."""
        raise NotImplementedError

    def read_back(self, tmp_path: Path) -> pa.Table:
        """All rows that a reader sees now; an empty table when there are none.

        Values in their first form: where the sink keeps a time as text, turn it back into a time here.
        """
        raise NotImplementedError

    # -- promises ------------------------------------------------------------------------------------------------------

    def test_delivered_parcel_is_visible_and_whole(self, tmp_path: Path) -> None:
        """After `deliver` every row is there, with equal values in columns of the same name."""
        with self._sink(tmp_path) as sink:
            rows = _readings(1)
            sink.deliver(self._parcel(tmp_path, sink, rows))
            self._assert_visible(tmp_path, sink, [rows])

    def test_same_token_twice_takes_effect_once(self, tmp_path: Path) -> None:
        """A parcel that is delivered again changes nothing, by the same sink or after a restart."""
        rows, later = _readings(1), _readings(2)
        with self._sink(tmp_path) as sink:
            sink.deliver(self._parcel(tmp_path, sink, rows))
            sink.deliver(self._parcel(tmp_path, sink, rows))
            self._assert_visible(tmp_path, sink, [rows])
        with self._sink(tmp_path) as sink:
            sink.deliver(self._parcel(tmp_path, sink, rows))
            self._assert_visible(tmp_path, sink, [rows])
            sink.deliver(self._parcel(tmp_path, sink, later, sequence=2))
        with self._sink(tmp_path) as sink:
            sink.deliver(self._parcel(tmp_path, sink, later, sequence=2))
            self._assert_visible(tmp_path, sink, [rows, later])

    def test_equal_rows_under_other_tokens_all_arrive(self, tmp_path: Path) -> None:
        """What makes a delivery the same is its token, not its rows: sequence, epoch or life makes it another."""
        first, *others = [_readings(1, first_key=100 * number) for number in range(4)]
        with self._sink(tmp_path) as sink:
            sink.deliver(self._parcel(tmp_path, sink, first))
            sink.deliver(self._parcel(tmp_path, sink, others[0], sequence=2))
            sink.deliver(self._parcel(tmp_path, sink, others[1], sequence=3, epoch=1))
            sink.deliver(self._parcel(tmp_path, sink, others[2], life="fedc9876"))
            self._assert_visible(tmp_path, sink, [first, *others])

    def test_nothing_is_visible_before_delivery(self, tmp_path: Path) -> None:
        """Making a sink and probing it shows no row, and `probe` says in one line what would happen."""
        with self._sink(tmp_path) as sink:
            parcel = self._parcel(tmp_path, sink, _readings(1))
            if isinstance(sink, Probing):
                said = sink.probe(next(parcel.batches()).schema)
                assert len(str(said).strip().splitlines()) == 1, f"probe() says {said!r}, not one line"
            self._assert_visible(tmp_path, sink, [])

    def test_reader_never_sees_a_part_of_a_parcel(self, tmp_path: Path) -> None:
        """Whenever files of the sink change during `deliver`, a reader sees what was there before, with all of the parcel or none of it."""
        if not self.watched:
            pytest.skip("nobody can read while the sink writes")
        home, seen = self._home(tmp_path), []
        parts = [_readings(1, count=MANY), _readings(2, first_key=MANY, count=MANY)]
        with self._sink(tmp_path) as sink:
            for number, rows in enumerate(parts):
                parcel = self._parcel(tmp_path, sink, rows, sequence=number + 1)
                with whenever_files_change(home, lambda: seen.append(self._count(tmp_path))):
                    sink.deliver(parcel)
                torn = [count for count in seen if count not in (number * MANY, (number + 1) * MANY)]
                assert not torn, f"while {MANY} rows were added to {number * MANY}, a reader saw {torn[0]}"
                seen.clear()
            self._assert_visible(tmp_path, sink, parts)

    def test_parcels_follow_each_other(self, tmp_path: Path) -> None:
        """Several parcels are all there, in order where the sink has an order."""
        parts = [_readings(sequence) for sequence in range(1, 6)]
        with self._sink(tmp_path) as sink:
            for sequence, rows in enumerate(parts, 1):
                sink.deliver(self._parcel(tmp_path, sink, rows, sequence=sequence))
                self._assert_visible(tmp_path, sink, parts[:sequence])

    @pytest.mark.parametrize("name", NAMES)
    def test_hostile_column_name_arrives_or_is_refused(self, tmp_path: Path, name: str) -> None:
        """A column of any name arrives, or `Refused` or `OptionError` names it and no row is visible."""
        rows = pa.record_batch({ROW: pa.array([1, 2]), "value": pa.array([0.5, 1.5]), name: pa.array(["a", None])})
        with self._sink(tmp_path) as sink:
            refusal = self._offer(sink, self._parcel(tmp_path, sink, rows), (Refused, OptionError))
            if refusal:
                told = any(form[:TOLD].lower() in refusal.lower() for form in (name, repr(name)))
                assert told, f"the refusal does not name the column {name!r}: {refusal}"
            self._assert_visible(tmp_path, sink, [] if refusal else [rows])

    @pytest.mark.parametrize("word", [*TYPES, *EXTREMES])
    def test_value_arrives_unchanged_or_is_refused(self, tmp_path: Path, word: str) -> None:
        """Every type and extreme value arrives as it was; one that is listed as `unsupported` is refused and no row is visible."""
        array = {**TYPES, **EXTREMES}[word]
        rows = pa.record_batch({ROW: pa.array([1, 2, 3]), "reading": pa.array([0.5, 1.5, 2.5]), f"a_{word}": array})
        with self._sink(tmp_path) as sink:
            refusal = self._offer(sink, self._parcel(tmp_path, sink, rows), (Refused, Rejected, OptionError))
            if word in self.unsupported:
                assert refusal, f"{word} is listed as unsupported, but was not refused"
                assert f"a_{word}" in refusal or str(array.type) in refusal, f"the refusal names neither column nor type: {refusal}"
            else:
                assert not refusal, f"{word} is refused ({refusal}); add it to `unsupported` if that is meant"
            self._assert_visible(tmp_path, sink, [] if refusal else [rows])

    def test_receipt_says_where_the_rows_are(self, tmp_path: Path) -> None:
        """Each delivery, the repeated one too, gives a receipt with a location and details that can be kept as JSON."""
        with self._sink(tmp_path) as sink:
            for _ in range(2):
                receipt = sink.deliver(self._parcel(tmp_path, sink, _readings(1)))
                assert isinstance(receipt, Receipt), f"deliver() gives {receipt!r}, not a Receipt"
                assert receipt.location, "the receipt has no location"
                wrong = [key for key, value in receipt.details.items() if type(value) not in PLAIN]
                assert not wrong, f"details of the receipt are not plain values: {wrong}"

    def test_closing_twice_is_fine(self, tmp_path: Path) -> None:
        """`close` may be called twice, and the rows stay."""
        sink, rows = self.make(self._home(tmp_path)), _readings(1)
        sink.deliver(self._parcel(tmp_path, sink, rows))
        sink.close()
        try:
            sink.close()
        except Exception as error:
            raise AssertionError(f"the second close() raises {error!r}") from error
        self._assert_visible(tmp_path, sink, [rows])

    def test_encoding_is_an_encoding(self, tmp_path: Path) -> None:
        """The sink says how it wants its files, always in the same way."""
        with self._sink(tmp_path) as sink:
            assert isinstance(sink.encoding, Encoding), f"encoding is {sink.encoding!r}, not an Encoding"
            assert sink.encoding == sink.encoding, "encoding changes from one look to the next"

    def test_parcel_is_untouched(self, tmp_path: Path) -> None:
        """The parcel file belongs to the spool: it is still there with the same bytes."""
        with self._sink(tmp_path) as sink:
            parcel = self._parcel(tmp_path, sink, _readings(1))
            before = parcel.path.read_bytes()
            sink.deliver(parcel)
        assert parcel.path.exists(), "deliver() took the parcel file away"
        assert parcel.path.read_bytes() == before, "deliver() changed the parcel file"

    # -- how -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def _sink(self, tmp_path: Path) -> Iterator[Sink]:
        with closing(self.make(self._home(tmp_path))) as sink:
            yield sink

    def _home(self, tmp_path: Path) -> Path:
        home = tmp_path / "sink"
        home.mkdir(exist_ok=True)
        return home

    def _parcel(self, tmp_path: Path, sink: Sink, rows: pa.RecordBatch, **token: Any) -> Parcel:
        return make_parcel(tmp_path / "spool", rows, encoding=sink.encoding, **token)

    def _offer(self, sink: Sink, parcel: Parcel, refusals: tuple[type[Exception], ...]) -> str:
        """The refusal in words, empty when the parcel was taken."""
        try:
            if isinstance(sink, Probing):
                sink.probe(next(parcel.batches()).schema)
            sink.deliver(parcel)
        except refusals as refusal:
            return str(refusal) or repr(refusal)
        except Exception as error:
            raise AssertionError(f"expected delivery or {' or '.join(kind.__name__ for kind in refusals)}, not {error!r}") from error
        return ""

    def _count(self, tmp_path: Path) -> int | str:
        try:
            return self.read_back(self._home(tmp_path)).num_rows
        except Exception as error:  # noqa: BLE001  # whatever the reader stumbled over, it should not have been there
            return repr(error)

    def _assert_visible(self, tmp_path: Path, sink: Sink, parts: list[pa.RecordBatch]) -> None:
        seen = self.read_back(self._home(tmp_path))
        assert isinstance(seen, pa.Table), f"read_back() gives {type(seen).__name__}, not a pyarrow Table"
        if not parts:
            assert not seen.num_rows, f"{seen.num_rows} rows are visible and none should be"
            return
        names = [name for name in parts[0].schema.names if name != ROW or sink.encoding.row_key]
        lost = [name for name in names if name not in seen.schema.names]
        assert not lost, f"the column {lost[0]!r} did not arrive; there are {seen.schema.names}"
        want = [row for part in parts for row in values(part, names)]
        assert_same_rows(values(seen, names), want, "what a reader sees", ordered=self.ordered)


def _readings(number: int, *, first_key: int | None = None, count: int = 10) -> pa.RecordBatch:
    """A few rows as sensors write them; another number gives other values and, without `first_key`, other keys."""
    start = 100 * number if first_key is None else first_key
    rows = range(count)
    return pa.record_batch(
        {
            ROW: pa.array(range(start, start + count), pa.int64()),
            "sensor_id": pa.array([f"sensor-{number}-{row % 3}" for row in rows]),
            "temperature": pa.array([None if row % 5 == 4 else number + row / 8 for row in rows]),
            "count": pa.array([number * 1_000 + row for row in rows]),
        }
    )
