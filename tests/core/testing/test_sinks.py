"""`SinkContract` fails for a sink that is broken in just that way, and passes for one that is not."""

from __future__ import annotations

import hashlib
import inspect
import shutil
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from attrs import define, field

from lakeward import Encoding, OptionError, Receipt, Refused, Rejected, Retry
from lakeward.components import Parcel
from lakeward.testing import SinkContract


@define
class Folder:
    """A file for each token, copied beside its place and renamed."""

    path: Path

    @property
    def encoding(self) -> Encoding:
        return Encoding()

    def probe(self, schema: pa.Schema) -> str:
        return f"would write {len(schema)} columns to {self.path}"

    def deliver(self, parcel: Parcel) -> Receipt:
        place = self.place(parcel)
        beside = place.with_suffix(".tmp")
        self.write(parcel, beside)
        beside.replace(place)
        return Receipt(str(place))

    def place(self, parcel: Parcel) -> Path:
        return self.path / f"{parcel.token.name}.parquet"

    def write(self, parcel: Parcel, place: Path) -> None:
        shutil.copyfile(parcel.path, place)

    def close(self) -> None:
        pass


class FolderContract(SinkContract):
    component: Any = Folder

    def make(self, tmp_path: Path) -> Any:
        return self.component(tmp_path)

    def read_back(self, tmp_path: Path) -> pa.Table:
        tables = [pq.read_table(path) for path in sorted(tmp_path.glob("*.parquet"))]
        return pa.concat_tables(tables) if tables else pa.table({})


class TestFolder(FolderContract):
    """The sink that keeps every promise."""

    ordered = True


class Rewriting(Folder):
    """What the broken ones below have in common: they write another table than they were given."""

    def write(self, parcel: Parcel, place: Path) -> None:
        pq.write_table(self.rewritten(pq.read_table(parcel.path)), place)

    def rewritten(self, table: pa.Table) -> pa.Table:
        return table


class LosesTheLastRow(Rewriting):
    def rewritten(self, table: pa.Table) -> pa.Table:
        return table.slice(0, table.num_rows - 1)


class ChangesAValue(Rewriting):
    def rewritten(self, table: pa.Table) -> pa.Table:
        return table.set_column(2, "count", pc.add(table["count"], 1)) if "count" in table.schema.names else table


class AppendsTwice(Folder):
    def place(self, parcel: Parcel) -> Path:
        return self.path / f"{uuid.uuid4()}.parquet"


@define
class AppendsTwiceAfterARestart(Folder):
    started: uuid.UUID = field(factory=uuid.uuid4, init=False)

    def place(self, parcel: Parcel) -> Path:
        return self.path / f"{self.started}-{parcel.token.name}.parquet"


class NamedByContent(Folder):
    def place(self, parcel: Parcel) -> Path:
        return self.path / f"{parcel.sha256}.parquet"


class NamedBySequenceOnly(Folder):
    def place(self, parcel: Parcel) -> Path:
        return self.path / f"{parcel.token.sequence}.parquet"


class WritesWhenProbed(Folder):
    def probe(self, schema: pa.Schema) -> str:
        pq.write_table(pa.Table.from_pylist([{}], schema), self.path / "probe.parquet")
        return "works"


class ProbesInSilence(Folder):
    def probe(self, schema: pa.Schema) -> str:
        return ""


class WritesInPlace(Folder):
    def deliver(self, parcel: Parcel) -> Receipt:
        self.write(parcel, self.place(parcel))
        return Receipt(str(self.place(parcel)))


class ShowsHalfAParcel(Folder):
    def deliver(self, parcel: Parcel) -> Receipt:
        for number, batch in enumerate(parcel.batches(rows=1_000)):
            beside = self.path / "half.tmp"
            pq.write_table(pa.Table.from_batches([batch]), beside)
            beside.replace(self.path / f"{parcel.token.name}-{number}.parquet")
        return Receipt(str(self.path))


class RewritesAllItHas(Folder):
    """Takes the old rows away for a moment."""

    def deliver(self, parcel: Parcel) -> Receipt:
        old = [(path, path.read_bytes()) for path in self.path.glob("*.parquet")]
        for path, _ in old:
            path.unlink()
        receipt = super().deliver(parcel)
        for path, content in old:
            path.with_suffix(".tmp").write_bytes(content)
            path.with_suffix(".tmp").replace(path)
        return receipt


class KeepsTheNewestOnly(Folder):
    def place(self, parcel: Parcel) -> Path:
        return self.path / "newest.parquet"


class NewestFirst(Folder):
    def place(self, parcel: Parcel) -> Path:
        return self.path / f"{999 - parcel.token.sequence}.parquet"


class DropsAHostileColumn(Rewriting):
    def rewritten(self, table: pa.Table) -> pa.Table:
        return table.select([name for name in table.schema.names if name.isidentifier()])


class RefusesWithoutSaying(Folder):
    def probe(self, schema: pa.Schema) -> str:
        if any(" " in name for name in schema.names):
            raise OptionError("", "cannot write this")
        return "works"


class RefusesTooLate(Folder):
    def deliver(self, parcel: Parcel) -> Receipt:
        super().deliver(parcel)
        raise Refused("columns may not be named with space")


class HopesForLater(Folder):
    def deliver(self, parcel: Parcel) -> Receipt:
        raise Retry("the server does not know with space")


class ThinksInFloats(Rewriting):
    def rewritten(self, table: pa.Table) -> pa.Table:
        last = table.schema.names[-1]
        return table.set_column(table.num_columns - 1, last, table[last].cast("float64", safe=False))


class RejectsBigIntegers(Folder):
    def deliver(self, parcel: Parcel) -> Receipt:
        raise Rejected("a_big_integers is too big")


class FailsOnBigIntegers(Folder):
    def deliver(self, parcel: Parcel) -> Receipt:
        raise OverflowError("too big")


class NoLocation(Folder):
    def deliver(self, parcel: Parcel) -> Receipt:
        super().deliver(parcel)
        return Receipt("")


class DetailsAreObjects(Folder):
    def deliver(self, parcel: Parcel) -> Receipt:
        return Receipt(super().deliver(parcel).location, {"path": self.path})  # type: ignore[dict-item]  # that is the fault


class NoReceipt(Folder):
    def deliver(self, parcel: Parcel) -> Any:
        super().deliver(parcel)


class ClosesOnce(Folder):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise ValueError("closed already")
        self.closed = True


class EncodingIsText(Folder):
    encoding = "zstd"  # type: ignore[assignment]  # that is the fault

    def write(self, parcel: Parcel, place: Path) -> None:
        pass


class TakesTheParcelAway(Folder):
    def write(self, parcel: Parcel, place: Path) -> None:
        parcel.path.replace(place)


class StampsTheParcel(Folder):
    def write(self, parcel: Parcel, place: Path) -> None:
        shutil.copyfile(parcel.path, place)
        parcel.path.write_bytes(parcel.path.read_bytes() + hashlib.sha256().digest())


NAME, VALUE = {"name": "with space"}, {"word": "big_integers"}
BROKEN: list[tuple[Any, str, str]] = [
    (LosesTheLastRow, "test_delivered_parcel_is_visible_and_whole", "9 rows instead of 10; 1 missing"),
    (ChangesAValue, "test_delivered_parcel_is_visible_and_whole", "10 missing, first .*10 too many"),
    (AppendsTwice, "test_same_token_twice_takes_effect_once", "10 too many"),
    (AppendsTwiceAfterARestart, "test_same_token_twice_takes_effect_once", "10 too many"),
    (NamedByContent, "test_equal_rows_under_other_tokens_all_arrive", "30 missing"),
    (NamedBySequenceOnly, "test_equal_rows_under_other_tokens_all_arrive", "10 missing"),
    (WritesWhenProbed, "test_nothing_is_visible_before_delivery", "1 rows are visible"),
    (ProbesInSilence, "test_nothing_is_visible_before_delivery", "not one line"),
    (WritesInPlace, "test_reader_never_sees_a_part_of_a_parcel", "while 2000 rows were added to 0, a reader saw ArrowInvalid"),
    (ShowsHalfAParcel, "test_reader_never_sees_a_part_of_a_parcel", "added to 0, a reader saw 1000"),
    (RewritesAllItHas, "test_reader_never_sees_a_part_of_a_parcel", "added to 2000, a reader saw 0"),
    (KeepsTheNewestOnly, "test_parcels_follow_each_other", "10 missing"),
    (NewestFirst, "test_parcels_follow_each_other", "another order"),
    (DropsAHostileColumn, "test_hostile_column_name_arrives_or_is_refused", "'with space' did not arrive"),
    (RefusesWithoutSaying, "test_hostile_column_name_arrives_or_is_refused", "does not name the column 'with space'"),
    (RefusesTooLate, "test_hostile_column_name_arrives_or_is_refused", "2 rows are visible"),
    (HopesForLater, "test_hostile_column_name_arrives_or_is_refused", "expected delivery or Refused or OptionError, not Retry"),
    (ThinksInFloats, "test_value_arrives_unchanged_or_is_refused", "missing, first .*9007199254740993"),
    (RejectsBigIntegers, "test_value_arrives_unchanged_or_is_refused", "add it to `unsupported`"),
    (FailsOnBigIntegers, "test_value_arrives_unchanged_or_is_refused", "not OverflowError"),
    (NoLocation, "test_receipt_says_where_the_rows_are", "no location"),
    (DetailsAreObjects, "test_receipt_says_where_the_rows_are", "not plain values: \\['path'\\]"),
    (NoReceipt, "test_receipt_says_where_the_rows_are", "not a Receipt"),
    (ClosesOnce, "test_closing_twice_is_fine", "closed already"),
    (EncodingIsText, "test_encoding_is_an_encoding", "not an Encoding"),
    (TakesTheParcelAway, "test_parcel_is_untouched", "took the parcel file away"),
    (StampsTheParcel, "test_parcel_is_untouched", "changed the parcel file"),
]


@pytest.mark.parametrize(("component", "promise", "says"), BROKEN)
def test_catches_a_broken_sink(component: Any, promise: str, says: str, tmp_path: Path) -> None:
    suite = FolderContract()
    suite.component, suite.ordered = component, True
    test = getattr(suite, promise)
    given = {name: value for name, value in (NAME | VALUE).items() if name in inspect.signature(test).parameters}
    with pytest.raises(AssertionError, match=says):
        test(tmp_path, **given)


def test_every_promise_is_broken_by_some_sink() -> None:
    assert {promise for _, promise, _ in BROKEN} == {name for name in dir(SinkContract) if name.startswith("test_")}


def test_what_is_listed_as_unsupported_must_be_refused(tmp_path: Path) -> None:
    suite = FolderContract()
    suite.unsupported = ("big_integers",)
    with pytest.raises(AssertionError, match="big_integers is listed as unsupported, but was not refused"):
        suite.test_value_arrives_unchanged_or_is_refused(tmp_path, "big_integers")


def test_what_is_listed_as_unsupported_may_be_rejected(tmp_path: Path) -> None:
    suite = FolderContract()
    suite.component, suite.unsupported = RejectsBigIntegers, ("big_integers",)
    suite.test_value_arrives_unchanged_or_is_refused(tmp_path, "big_integers")


def test_a_clear_refusal_of_a_hostile_name_is_fine(tmp_path: Path) -> None:
    class SaysWhich(Folder):
        def probe(self, schema: pa.Schema) -> str:
            raise OptionError("from", f"columns may not be called {schema.names[-1]!r}")

    suite = FolderContract()
    suite.component = SaysWhich
    for name in ("with space", "tab\tnewline\n", "single'quote"):
        suite.test_hostile_column_name_arrives_or_is_refused(tmp_path, name)
