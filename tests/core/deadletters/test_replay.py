"""Letters that go through a graph again: the fates of rows that several branches share, ranges, and transforms that break."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import ROW, Batch, Encoding, Parcel, Receipt, filtered, rejected
from lakeward.bell import Bell
from lakeward.config import load
from lakeward.pipeline import SOURCE, Pipeline, Step
from lakeward.plugins import load_plugins
from lakeward.run import Run
from lakeward.state import State
from lakeward.testing import ScriptedSource

SCHEMA = pa.schema([(ROW, pa.int64()), ("id", pa.int64())])


@define
class Folder:
    path: Path
    encoding: Encoding = Encoding(row_key=True)

    def deliver(self, parcel: Parcel) -> Receipt:
        self.path.mkdir(exist_ok=True)
        (self.path / f"{parcel.token.name}.parquet").write_bytes(parcel.path.read_bytes())
        return Receipt(str(self.path))

    def close(self) -> None: ...

    def ids(self) -> list[int]:
        return sorted(number for file in self.path.glob("*.parquet") for number in pq.read_table(file)["id"].to_pylist())


@define
class Strict:
    """Rejects some ids, filters others."""

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = True
    bad: set[int]
    unwanted: set[int] = field(factory=set)
    broken: bool = False

    def apply(self, batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        if self.broken:
            raise RuntimeError("boom")
        bad = pc.is_in(batch["id"], value_set=pa.array(sorted(self.bad), pa.int64()))
        unwanted = pc.and_not(pc.is_in(batch["id"], value_set=pa.array(sorted(self.unwanted), pa.int64())), bad)
        return {
            "main": batch.filter(pc.invert(pc.or_(bad, unwanted))),
            "rejected": rejected(batch.filter(bad), "odd"),
            "filtered": filtered(batch.filter(unwanted), "unwanted"),
        }


class House:
    """A pipeline with transforms `a`, `b` side by side behind the source and `c` behind `b`, each with its sink."""

    def __init__(self, folder: Path, source: Any, **transforms: Strict) -> None:
        self.folder, self.source = folder, source
        self.transforms = {"a": Strict(set()), "b": Strict(set()), "c": Strict(set()), **transforms}
        self.sinks = {name: Folder(folder / name) for name in ("raw", *self.transforms)}
        (folder / "p.yaml").write_text("name: p\nsource: {use: x}\nsinks: {out: {use: x}}\nbatch: {rows: 5}\n")

    def run(self, read: bool = True) -> str:
        above = {"a": SOURCE, "b": SOURCE, "c": ("b", "main")}
        steps = [Step(name, [above[name]], transform) for name, transform in self.transforms.items()]
        links = {"raw": [SOURCE], **{name: [(name, "main")] for name in self.transforms}}
        schemas = {SOURCE: SCHEMA, **{(name, "main"): SCHEMA for name in self.transforms}}
        pipeline = Pipeline(load(self.folder / "p.yaml"), "main", self.source, steps, self.sinks, links, schemas)
        with State.hold(self.folder / "state") as state, closing(Bell()) as bell:
            return Run(pipeline, load_plugins(entries=[]), state, bell, once=True, read=read).execute().error

    def replay(self, stage: str) -> str:
        with State.beside(self.folder / "state") as state:
            state.letters.mark([letter["id"] for letter in state.letters.find(-1, "stage = ? AND status = 'open'", stage)])
        return self.run(read=False)

    def state(self) -> tuple[dict[str, int], list[tuple[Any, ...]]]:
        """Fates, and the letters that are not replayed."""
        with State.look(self.folder / "state") as state:
            assert state is not None
            found = [
                (one["stage"], one["row_low"], one["status"], one["attempts"]) for one in state.letters.find(-1, "status != 'replayed'")
            ]
            return state.totals()["rows"], sorted(found)


ROWS = [{"id": number} for number in range(1, 13)]
IDS = st.sets(st.integers(1, 12), max_size=5)


@given(IDS, IDS, IDS, IDS, st.lists(st.sampled_from("abc"), max_size=4), IDS)
@settings(max_examples=6, deadline=None)
def test_whatever_is_replayed_when_each_row_has_one_fate_and_arrives_once_on_each_branch(
    tmp_path_factory: pytest.TempPathFactory, a: set[int], b: set[int], c: set[int], unwanted: set[int], order: list[str], mended: set[int]
) -> None:
    house = House(tmp_path_factory.mktemp("h"), ScriptedSource([ROWS]), a=Strict(a, unwanted), b=Strict(b), c=Strict(c))
    assert house.run() == ""
    for stage in order:  # with the same rules, or better ones
        house.transforms[stage].bad -= mended
        assert house.replay(stage) == ""
        _assert_identity(house)
    for transform in house.transforms.values():
        transform.bad = set()
    for stage in "abc":
        assert house.replay(stage) == ""
        _assert_identity(house)
    everything = list(range(1, 13))
    assert house.sinks["raw"].ids() == house.sinks["b"].ids() == house.sinks["c"].ids() == everything
    assert house.sinks["a"].ids() == [number for number in everything if number not in unwanted]
    assert house.state()[1] == []


def _assert_identity(house: House) -> None:
    rows, letters = house.state()
    assert rows["read"] == 12 == rows["delivered"] + rows["filtered"] + rows["dead"]
    assert rows["dead"] == len({row for _, row, *_ in letters})


def test_a_row_that_two_branches_refused_is_dead_until_both_have_it(tmp_path: Path) -> None:
    house = House(tmp_path, ScriptedSource([ROWS]), a=Strict({3}), b=Strict({3, 5}))
    house.run()
    assert house.state() == (
        {"read": 12, "delivered": 10, "filtered": 0, "dead": 2}, [("a", 3, "open", 1), ("b", 3, "open", 1), ("b", 5, "open", 1)],
    )  # fmt: skip
    house.transforms["a"].bad = set()
    house.replay("a")
    assert house.state() == ({"read": 12, "delivered": 10, "filtered": 0, "dead": 2}, [("b", 3, "open", 1), ("b", 5, "open", 1)])
    house.transforms["b"].bad = {5}
    house.replay("b")
    assert house.state() == ({"read": 12, "delivered": 11, "filtered": 0, "dead": 1}, [("b", 5, "open", 2)])
    assert (house.sinks["a"].ids(), house.sinks["c"].ids()) == (list(range(1, 13)), [1, 2, 3, 4, *range(6, 13)])


def test_a_transform_that_breaks_fails_the_run_once_and_its_letters_are_open_again(tmp_path: Path) -> None:
    house = House(tmp_path, ScriptedSource([ROWS]), b=Strict({3}))
    house.run()
    house.transforms["b"].broken = True
    assert house.replay("b") == "dead letters of b could not be replayed: boom"
    assert house.state() == ({"read": 12, "delivered": 11, "filtered": 0, "dead": 1}, [("b", 3, "open", 2)])
    assert house.run() == "", "the next run is not broken by it"


# -- ranges that could not be read -------------------------------------------------------------------------------------


@define
class Torn:
    """Twelve rows, of which some cannot be read until the disk is mended."""

    unreadable: range
    gone: bool = False

    def schema(self) -> pa.Schema:
        return SCHEMA

    def read(self, after: Mapping[str, Any] | None, limit: int) -> Iterator[Batch]:
        first, last, epoch = (after or {}).get("at", [1, 12, 0])
        keys = [] if self.gone else list(range(first, last + 1))
        good = pa.array([key for key in keys if key not in self.unreadable], pa.int64())
        bad = [key for key in keys if key in self.unreadable]
        lost = pa.RecordBatch.from_pydict({ROW: pa.array([min(bad)]), "_row_high": pa.array([max(bad)])}) if bad else None
        marked = rejected(lost, "source_corrupt", "malformed") if lost else None
        if keys:
            yield Batch(pa.record_batch([good, good], schema=SCHEMA), {"at": [last + 1, 12, epoch]}, marked, "a.db", epoch)

    def reread(self, first: int, last: int | None, epoch: int, origin: str = "") -> Mapping[str, Any]:
        assert (epoch, origin) == (0, "a.db")
        return {"at": [first, last, epoch]}

    def close(self) -> None: ...


class Plain(Torn):
    """One that cannot be asked for a part."""

    reread = None  # type: ignore[assignment]


def test_a_range_is_read_again_when_it_can_be(tmp_path: Path) -> None:
    source = Torn(range(5, 9))
    house = House(tmp_path, source, a=Strict({6}))
    house.run()
    assert house.state() == ({"read": 9, "delivered": 8, "filtered": 0, "dead": 1}, [("source", 5, "open", 1)])
    house.replay("source")
    assert house.state()[1] == [("source", 5, "open", 2)]
    source.unreadable = range(5, 7)
    house.replay("source")
    assert house.state() == ({"read": 11, "delivered": 10, "filtered": 0, "dead": 1}, [("source", 5, "open", 1)])
    source.unreadable = range(0)
    house.replay("source")
    assert house.state() == ({"read": 12, "delivered": 11, "filtered": 0, "dead": 1}, [("a", 6, "open", 1)])
    assert house.sinks["raw"].ids() == list(range(1, 13))


def test_a_range_that_is_gone_or_cannot_be_asked_for_says_so(tmp_path: Path) -> None:
    source = Torn(range(5, 9))
    house = House(tmp_path, source)
    house.run()
    source.gone = True
    house.replay("source")
    house.source = Plain(range(5, 9))
    house.replay("source")
    with State.look(tmp_path / "state") as state:
        assert state is not None
        (letter,) = state.letters.find()
    assert (letter["attempts"], letter["note"]) == (3, "the rows were never read, and this source cannot read a part of its input again")
