"""The loop over real state, real spool files and a real Parquet folder; only the source is scripted."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from attrs import define, field

from lakeward import ROW, Encoding, OptionError, Parcel, Receipt, Refused, Rejected, Retry, filtered, rejected
from lakeward.bell import Bell
from lakeward.config import load
from lakeward.errors import LakewardError, NoRoom
from lakeward.hookspecs import hookimpl
from lakeward.pipeline import Pipeline, Step
from lakeward.plugins import load_plugins
from lakeward.run import Run
from lakeward.state import State
from lakeward.testing import Crash, Fail, ScriptedSource
from lakeward.testing.scripted import Crashed

ROWS = [{"id": number, "temperature": float(number)} for number in range(10)]


@define
class Folder:
    """A sink with nothing but what the contract asks for."""

    path: Path
    encoding: Encoding = Encoding(row_key=True)
    trouble: list[BaseException] = field(factory=list)

    def deliver(self, parcel: Parcel) -> Receipt:
        if self.trouble:
            raise self.trouble.pop(0)
        self.path.mkdir(exist_ok=True)
        (self.path / f"{parcel.token.name}.parquet").write_bytes(parcel.path.read_bytes())
        return Receipt(str(self.path))

    def close(self) -> None: ...

    def ids(self) -> list[int]:
        files = sorted(self.path.glob("*.parquet")) if self.path.exists() else []
        return [number for file in files for number in pq.read_table(file)["id"].to_pylist()]


@define
class Sorter:
    """Hot rows to `hot`, row 3 rejected, row 4 filtered, the rest to `main`."""

    ports: ClassVar[tuple[str, ...]] = ("main", "hot")
    row_wise: ClassVar[bool] = True

    def apply(self, batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        hot, third, fourth = (mask(batch) for mask in (_over(6), _is(3), _is(4)))
        rest = pc.invert(pc.or_(hot, pc.or_(third, fourth)))
        return {
            "main": batch.filter(rest),
            "hot": batch.filter(hot),
            "rejected": rejected(batch.filter(third), "odd", "three"),
            "filtered": filtered(batch.filter(fourth), "no fours"),
        }


@define
class Sum:
    """Sums temperatures; gives a row for each five rows seen."""

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = False
    seen: int = field(default=0, init=False)
    total: float = field(default=0.0, init=False)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        sums = []
        for temperature in batch["temperature"].to_pylist():
            self.seen, self.total = self.seen + 1, self.total + temperature
            if self.seen % 5 == 0:
                sums.append(self.total)
        return pa.record_batch({"id": pa.array(range(len(sums)), pa.int64()), "sum": pa.array(sums, pa.float64())})

    def state(self) -> bytes:
        return json.dumps([self.seen, self.total]).encode()

    def restore(self, state: bytes) -> None:
        self.seen, self.total = json.loads(state)

    def finish(self, watermark: object) -> pa.RecordBatch:
        return pa.record_batch({"id": pa.array([-1], pa.int64()), "sum": pa.array([self.total], pa.float64())})


@define
class Behind:
    """Gives each row when the next one is there; at the end the last."""

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = True
    held: Any = field(init=False, default=None)
    loses: bool = False
    times: list[Any] = field(init=False, factory=list)

    def clock(self, now: datetime) -> None:
        self.times.append(now)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        known = batch if self.held is None else pa.concat_batches([self.held, batch])
        split = max(known.num_rows - 1, 0)
        self.held = known.slice(split)
        return known.slice(1, split - 1) if self.loses else known.slice(0, split)

    def state(self) -> bytes:
        return json.dumps(self.held.to_pylist() if self.held is not None else []).encode()

    def restore(self, state: bytes) -> None:
        self.held = pa.RecordBatch.from_pylist(json.loads(state), SCHEMA)

    def finish(self, watermark: object) -> pa.RecordBatch:
        last, self.held = self.held, None
        return last if last is not None else pa.RecordBatch.from_pylist([], SCHEMA)


SCHEMA = pa.schema([(ROW, pa.int64()), ("id", pa.int64()), ("temperature", pa.float64())])


def _over(limit: float) -> Callable[[pa.RecordBatch], Any]:
    return lambda batch: pc.greater(batch["temperature"], limit)


def _is(number: int) -> Callable[[pa.RecordBatch], Any]:
    return lambda batch: pc.equal(batch["id"], number)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Run a pipeline once: `start(script, sinks, links, transforms)`."""
    file = tmp_path / "p.yaml"
    file.write_text("name: p\nsource: {use: scripted}\nsinks: {out: {use: folder}}\nbatch: {rows: 4, wait: 10ms}\n")

    def run(
        script: list[Any], sinks: Mapping[str, Any], links: Mapping[str, Any] | None = None, steps: Sequence[Step] = (), *,
        once: bool = True, finish: bool = False, plugins: Sequence[object] = (), state: str = "state",
    ) -> Any:  # fmt: skip
        loaded = load_plugins(entries=[])
        for plugin in plugins:
            loaded.manager.register(plugin)
        links = links or {name: [("source", "main")] for name in sinks}
        pipeline = Pipeline(load(file), "main", ScriptedSource(script), steps, sinks, links)
        with State.hold(tmp_path / state) as held:
            bell = Bell()
            one = Run(pipeline, loaded, held, bell, once=once, finish=finish)
            try:
                with bell.listen_for_signals():
                    result = one.execute()
            finally:
                (rung.append if one.abandoned else Bell.close)(bell)
            return result, held.totals(), held.letters.find(), held.waiting()

    rung: list[Bell] = []  # by workers that were left behind
    yield run
    for bell in rung:
        bell.close()


def test_delivers_every_row_in_batches_of_the_configured_size(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out")
    result, totals, _, waiting = start([ROWS], {"out": sink})
    assert sink.ids() == list(range(10))
    assert [pq.read_table(file).num_rows for file in sorted(sink.path.iterdir())] == [4, 4, 2]
    assert (result.status, result.read, result.delivered, waiting) == ("done", 10, {"out": 10}, {})
    assert totals["rows"] == {"read": 10, "delivered": 10, "filtered": 0, "dead": 0}


def test_a_second_run_without_new_rows_delivers_nothing(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out")
    start([ROWS], {"out": sink})
    before = sorted(sink.path.iterdir())
    result, *_ = start([ROWS], {"out": sink})
    assert (result.read, sorted(sink.path.iterdir())) == (0, before)
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_new_rows_arrive_once(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out")
    start([ROWS], {"out": sink})
    start([ROWS, [{"id": 10, "temperature": 1.0}]], {"out": sink})
    assert sink.ids() == list(range(11))


def test_each_row_is_on_a_port_or_filtered_by_name_or_a_dead_letter(start: Any, tmp_path: Path) -> None:
    cool, hot = Folder(tmp_path / "cool"), Folder(tmp_path / "hot")
    steps = [Step("sorted", [("source", "main")], Sorter())]
    _, totals, dead, _ = start([ROWS], {"cool": cool, "hot": hot}, {"cool": [("sorted", "main")], "hot": [("sorted", "hot")]}, steps)
    assert (cool.ids(), hot.ids()) == ([0, 1, 2, 5, 6], [7, 8, 9])
    assert totals["rows"] == {"read": 10, "delivered": 8, "filtered": 1, "dead": 1}
    assert totals["filtered"] == {"sorted: no fours": 1}
    assert [(one["stage"], one["reason"], one["detail"], one["row_low"], json.loads(one["payload"])) for one in dead] == [
        ("sorted", "odd", "three", 4, {"id": 3, "temperature": 3.0})
    ]


def test_rows_on_a_port_that_nothing_takes_are_counted_under_its_name(start: Any, tmp_path: Path) -> None:
    steps = [Step("sorted", [("source", "main")], Sorter())]
    _, totals, *_ = start([ROWS], {"cool": Folder(tmp_path / "cool")}, {"cool": [("sorted", "main")]}, steps)
    assert totals["filtered"] == {"sorted: no fours": 1, "sorted.hot: nothing takes it": 3}
    assert totals["rows"] == {"read": 10, "delivered": 5, "filtered": 4, "dead": 1}


def test_two_ports_joined_are_again_in_the_order_of_the_source(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out")
    steps = [Step("sorted", [("source", "main")], Sorter())]
    start([ROWS[::-1]], {"out": sink}, {"out": [("sorted", "main"), ("sorted", "hot")]}, steps)
    assert sink.ids() == [9, 8, 7, 6, 5, 2, 1, 0]


def test_a_row_that_waits_for_the_next_one_has_no_fate_before_it_leaves(start: Any, tmp_path: Path) -> None:
    sink, links = Folder(tmp_path / "out"), {"out": [("behind", "main")]}
    _, totals, *_ = start([ROWS[:5]], {"out": sink}, links, [Step("behind", [("source", "main")], Behind())])
    assert (sink.ids(), totals["rows"]) == ([0, 1, 2, 3], {"read": 5, "delivered": 4, "filtered": 0, "dead": 0, "held": 1})
    _, totals, *_ = start([ROWS], {"out": sink}, links, [Step("behind", [("source", "main")], Behind())], finish=True)
    assert (sink.ids(), totals["rows"]) == (list(range(10)), {"read": 10, "delivered": 10, "filtered": 0, "dead": 0, "held": 0})


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_row_that_waited_gets_the_fate_it_meets_then(start: Any, tmp_path: Path, size: int) -> None:
    sink, transforms = Folder(tmp_path / "out"), [("behind", "source", Behind), ("sorted", "behind", Sorter), ("again", "sorted", Behind)]
    links = {"out": [("again", "main"), ("sorted", "hot")]}
    for rows, finish in [(ROWS[:size], False), (ROWS[: 2 * size], False), (ROWS, True)]:
        steps = [Step(name, [(above, "main")], make()) for name, above, make in transforms]
        _, totals, dead, _ = start([rows], {"out": sink}, links, steps, finish=finish)
        fates = totals["rows"]
        assert fates["read"] == fates["delivered"] + fates["filtered"] + fates["dead"] + fates.get("held", 0)
        assert (len(sink.ids()), len(dead)) == (fates["delivered"], fates["dead"])
    assert fates == {"read": 10, "delivered": 8, "filtered": 1, "dead": 1, "held": 0}


def test_a_row_that_is_neither_held_back_nor_given_stops_the_run(start: Any, tmp_path: Path) -> None:
    steps = [Step("behind", [("source", "main")], Behind(loses=True))]
    result, *_ = start([ROWS[:4]], {"out": Folder(tmp_path / "out")}, {"out": [("behind", "main")]}, steps)
    assert (result.status, result.read) == ("failed", 0)
    assert "'behind' took 4 rows and gave 3" in result.error


def test_an_option_that_does_not_suit_the_rows_is_told_with_its_transform(start: Any, tmp_path: Path) -> None:
    @define
    class Picky(Sorter):
        def apply(self, batch: pa.RecordBatch) -> Any:
            raise OptionError("query", "fails on a row")

    result, *_ = start(
        [ROWS], {"out": Folder(tmp_path / "out")}, {"out": [("picky", "main")]}, [Step("picky", [("source", "main")], Picky())]
    )
    assert (result.status, result.read, result.error) == ("failed", 0, "transforms.picky.query: fails on a row")


def test_a_transform_that_needs_the_time_is_told_it_before_each_batch(start: Any, tmp_path: Path) -> None:
    before, told = datetime.now(UTC), Behind()
    start([ROWS], {"out": Folder(tmp_path / "out")}, {"out": [("behind", "main")]}, [Step("behind", [("source", "main")], told)])
    assert len(told.times) == 3
    assert before <= told.times[0] <= told.times[1] <= told.times[2] <= datetime.now(UTC)


def test_state_goes_on_after_a_restart_as_if_nothing_had_happened(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out", Encoding())
    links = {"out": [("sums", "main")]}
    start([ROWS[:3]], {"out": sink}, links, [Step("sums", [("source", "main")], Sum())])
    start([ROWS], {"out": sink}, links, [Step("sums", [("source", "main")], Sum())])
    sums = [value for file in sorted(sink.path.iterdir()) for value in pq.read_table(file)["sum"].to_pylist()]
    assert sums == [0 + 1 + 2 + 3 + 4, sum(range(10))]


def test_finish_closes_what_is_open_at_the_end_of_the_input(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out", Encoding())
    start([ROWS[:3]], {"out": sink}, {"out": [("sums", "main")]}, [Step("sums", [("source", "main")], Sum())], finish=True)
    assert sink.ids() == [-1]


def test_sinks_with_the_same_rows_and_encoding_share_one_file(start: Any, tmp_path: Path) -> None:
    parcels: dict[str, list[Path]] = {}

    class Watch:
        @hookimpl
        def lakeward_parcel_delivered(self, parcel: Parcel) -> None:
            parcels.setdefault(parcel.token.sink, []).append(parcel.path)

    sinks = {"a": Folder(tmp_path / "a"), "b": Folder(tmp_path / "b"), "plain": Folder(tmp_path / "c", Encoding())}
    start([ROWS], sinks, plugins=[Watch()])
    assert parcels["a"] == parcels["b"]
    assert not set(parcels["a"]) & set(parcels["plain"])
    assert ROW not in pq.read_table(next((tmp_path / "c").iterdir())).schema.names


def test_a_sink_that_recovers_gets_everything_in_order_and_once(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out", trouble=[Retry("busy", after=0.01), Retry("busy", after=0.01), OSError("cable")])
    result, _, _, waiting = start([ROWS], {"out": sink})
    assert (result.status, sink.ids(), waiting) == ("done", list(range(10)), {})


def test_a_dead_sink_does_not_hold_up_the_others_and_its_rows_wait(start: Any, tmp_path: Path) -> None:
    good, bad = Folder(tmp_path / "good"), Folder(tmp_path / "bad", trouble=[Refused("no permission")])
    result, _, _, waiting = start([ROWS], {"good": good, "bad": bad})
    assert (result.status, result.error) == ("failed", "sink bad: no permission")
    assert (good.ids(), waiting) == (list(range(10)), {"bad": (3, 10)})
    result, *_ = start([ROWS], {"good": good, "bad": bad})
    assert (result.status, bad.ids(), good.ids()) == ("done", list(range(10)), list(range(10)))


def test_reading_pauses_when_the_spool_is_full_and_goes_on_later(start: Any, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text((tmp_path / "p.yaml").read_text() + "spool: {max_mb: 1}\n")
    rows = [{"id": number, "noise": os.urandom(300_000)} for number in range(10)]  # so that four of them are more than the cap
    sink = Folder(tmp_path / "out", trouble=[Refused("no permission")])
    result, _, _, waiting = start([rows], {"out": sink})
    assert (result.status, result.read, waiting) == ("failed", 4, {"out": (1, 4)})
    result, _, _, waiting = start([rows], {"out": sink})
    assert (result.status, result.read, sink.ids(), waiting) == ("done", 6, list(range(10)), {})


def test_what_a_crash_left_in_the_spool_is_cleared_away_and_what_waits_is_kept(start: Any, tmp_path: Path) -> None:
    sink, spool = Folder(tmp_path / "out", trouble=[Refused("no permission")]), tmp_path / "state" / "spool"
    start([ROWS], {"out": sink})
    for name in ("0000-0000000009-0.parquet", "0000-0000000009-1.tmp"):
        (spool / name).write_bytes(b"never recorded")
    result, *_ = start([ROWS], {"out": sink})
    assert (result.status, sink.ids(), list(spool.iterdir())) == ("done", list(range(10)), [])


def test_the_names_of_spooled_files_are_durable_before_they_are_recorded(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, fsync, durable = tmp_path / "state" / "spool", os.fsync, set[str]()

    def watched(handle: int) -> None:
        fsync(handle)
        if spool.exists() and os.fstat(handle).st_ino == spool.stat().st_ino:
            durable.update(path.name for path in spool.iterdir())

    @define
    class Witness(Folder):
        def deliver(self, parcel: Parcel) -> Receipt:
            assert parcel.path.name in durable  # what is delivered was recorded before
            return super().deliver(parcel)

    monkeypatch.setattr(os, "fsync", watched)
    result, *_ = start([ROWS], {"out": Witness(tmp_path / "out")})
    assert (result.status, len(durable)) == ("done", 3)


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"PAR1")])
def test_a_spooled_file_that_was_damaged_is_told_and_never_delivered(start: Any, tmp_path: Path, damage: Any) -> None:
    sink = Folder(tmp_path / "out", trouble=[Refused("no permission")])
    start([ROWS], {"out": sink})
    damage(next((tmp_path / "state" / "spool").glob("*-0000000002-0.parquet")))
    result, _, _, waiting = start([ROWS], {"out": sink})
    assert (result.status, sink.ids(), waiting) == ("failed", [0, 1, 2, 3], {"out": (2, 6)})
    assert "0000-0000000002-0.parquet is damaged or gone, so its 4 rows cannot be delivered" in result.error


def test_rows_that_a_sink_rejects_become_dead_letters(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out", trouble=[Rejected("too odd", range(4))])
    result, totals, dead, waiting = start([ROWS], {"out": sink})
    assert (result.status, sink.ids(), waiting) == ("done", list(range(4, 10)), {})
    assert [(one["stage"], one["detail"], json.loads(one["payload"])["id"]) for one in reversed(dead)] == [
        ("sink out", "too odd", number) for number in range(4)
    ]
    assert totals["refused"] == {"out": 4}


def test_a_source_that_stumbles_is_read_again(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out")
    result, *_ = start([ROWS[:5], Fail(Retry("locked", after=0.01)), ROWS[5:]], {"out": sink})
    assert (result.status, sink.ids()) == ("done", list(range(10)))


def test_after_a_crash_in_the_source_the_next_run_goes_on(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out")
    script = [ROWS[:6], Crash(), ROWS[6:]]
    with pytest.raises(Crashed):
        start(script, {"out": sink})
    start(script, {"out": sink})
    assert sink.ids() == list(range(10))


def test_a_transform_that_loses_rows_fails_the_run_before_anything_of_the_batch_is_recorded(start: Any, tmp_path: Path) -> None:
    class Leaky(Sorter):
        def apply(self, batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
            return {"main": batch.slice(1)}

    sink = Folder(tmp_path / "out")
    result, totals, _, waiting = start([ROWS], {"out": sink}, {"out": [("leaky", "main")]}, [Step("leaky", [("source", "main")], Leaky())])
    assert (result.status, totals, waiting, sink.ids()) == ("failed", {}, {}, [])
    assert "'leaky' took 4 rows and gave 3" in result.error


def test_an_observer_that_fails_disturbs_nobody(start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    heard = []

    class Broken:
        @hookimpl
        def lakeward_batch_recorded(self, batch: Any) -> None:
            raise RuntimeError("boom")

    class Listener:
        @hookimpl
        def lakeward_batch_recorded(self, run: Any, batch: Any) -> None:
            heard.append((batch.read, dict(batch.sinks)))

    start([ROWS], {"out": Folder(tmp_path / "out")}, plugins=[Broken(), Listener()])
    assert heard == [(4, {"out": 4}), (4, {"out": 4}), (2, {"out": 2})]
    assert "boom" in caplog.text


def test_a_third_party_that_calls_exit_ends_neither_the_run_nor_a_delivery(start: Any, tmp_path: Path) -> None:
    class Leaving:
        @hookimpl
        def lakeward_batch_recorded(self) -> None:
            raise SystemExit(9)

        @hookimpl
        def lakeward_parcel_delivered(self) -> None:
            raise SystemExit(9)

    sink = Folder(tmp_path / "out", trouble=[SystemExit(9)])
    result, _, _, waiting = start([ROWS], {"out": sink}, plugins=[Leaving()])
    assert (result.status, sink.ids(), waiting) == ("done", list(range(10)), {})


def test_a_plugin_can_refuse_the_run(start: Any, tmp_path: Path) -> None:
    class Guard:
        @hookimpl
        def lakeward_run_started(self) -> None:
            raise ValueError("not on Sundays")

    with pytest.raises(LakewardError, match="not on Sundays"):
        start([ROWS], {"out": Folder(tmp_path / "out")}, plugins=[Guard()])


def test_sigterm_finishes_what_is_in_hand(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out")
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    result, _, _, waiting = start([ROWS], {"out": sink}, once=False)
    timer.join()
    assert (result.status, sink.ids(), waiting) == ("stopped", list(range(10)), {})


def test_a_sink_that_needs_a_human_is_tried_soon_and_holds_up_nobody(start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = Folder(tmp_path / "out", trouble=[Refused("no permission")] * 99)

    def stop() -> None:
        spool = tmp_path / "state" / "spool"
        while "no permission; next attempt" not in caplog.text or len(list(spool.glob("*.parquet"))) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    waiter = threading.Thread(target=stop, daemon=True)
    waiter.start()
    result, _, _, waiting = start([ROWS], {"out": sink}, once=False)
    waiter.join()
    assert re.search(r"sink out: no permission; next attempt in (0\.[5-9]|1\.0) s", caplog.text), "what is mended at once is seen at once"
    assert (result.status, waiting) == ("stopped", {"out": (3, 10)})


def big(first: int, last: int) -> list[dict[str, Any]]:
    """Rows of which four fill a spool of one megabyte."""
    return [{"id": number, "temperature": float(number), "pad": os.urandom(400_000)} for number in range(first, last)]


def test_a_full_spool_that_nobody_empties_fails_the_run_instead_of_ending_it_early(start: Any, tmp_path: Path) -> None:
    config = tmp_path / "p.yaml"
    config.write_text(config.read_text() + "spool: {max_mb: 1}\n")
    old, new = Folder(tmp_path / "old", trouble=[Refused("no permission")]), Folder(tmp_path / "new")
    sums = Folder(tmp_path / "sums", Encoding())
    rows = [big(0, 12)]
    result, *_ = start(rows, {"old": old})
    assert (result.status, result.error, result.read) == ("failed", "sink old: no permission", 4)
    steps = [Step("windows", [("source", "main")], Sum())]
    result, *_ = start(rows, {"new": new, "sums": sums}, {"new": [("source", "main")], "sums": [("windows", "main")]}, steps, finish=True)
    assert (result.status, result.read) == ("failed", 0)
    assert "the spool is full, and nobody empties it: old is not part of this graph" in result.error
    assert sums.ids() == [], "rows were still to come, so nothing was complete"
    result, *_ = start(rows, {"new": new}, once=False)
    assert (result.status, result.read, "nobody empties it: old is not part" in result.error) == ("failed", 0, True)
    result, *_ = start(rows, {"old": old})
    assert (result.status, old.ids()) == ("done", list(range(12)))


def test_a_full_spool_that_is_being_emptied_is_waited_for(start: Any, tmp_path: Path) -> None:
    config = tmp_path / "p.yaml"
    config.write_text(config.read_text() + "spool: {max_mb: 1}\n")
    sink = Folder(tmp_path / "out")
    result, *_ = start([big(0, 40)], {"out": sink})
    assert (result.status, sink.ids()) == ("done", list(range(40)))


@pytest.mark.parametrize("once", [True, False])
def test_a_worker_that_breaks_fails_the_run(start: Any, tmp_path: Path, once: bool) -> None:
    class Quits(Folder):
        def deliver(self, parcel: Parcel) -> Receipt:
            raise KeyboardInterrupt

    result, _, _, waiting = start([ROWS], {"out": Quits(tmp_path / "out")}, once=once)
    assert (result.status, result.error) == ("failed", "sink out: the worker failed: KeyboardInterrupt: ")
    assert waiting["out"][1] == result.read


def test_a_transform_that_ends_the_process_fails_the_run(start: Any, tmp_path: Path) -> None:
    class Quits(Sorter):
        def apply(self, batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
            raise SystemExit(0)

    result, totals, *_ = start([ROWS], {"out": Folder(tmp_path / "out")}, steps=[Step("quits", [("source", "main")], Quits())])
    assert (result.status, result.error, totals) == ("failed", "SystemExit: 0", {})


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_runs_leave_no_file_open(start: Any, tmp_path: Path) -> None:
    class Guard:
        @hookimpl
        def lakeward_run_started(self) -> None:
            raise ValueError("not on Sundays")

    def run_in_three_ways() -> int:
        start([ROWS], {"out": Folder(tmp_path / "out")})
        start([ROWS], {"out": Folder(tmp_path / "bad", trouble=[Refused("no")])}, state="other")
        with pytest.raises(LakewardError, match="not on Sundays"):
            start([ROWS], {"out": Folder(tmp_path / "out")}, plugins=[Guard()])
        return len(list(Path("/proc/self/fd").iterdir()))

    assert run_in_three_ways() == run_in_three_ways()


def test_state_that_does_not_fit_any_more_is_one_line(start: Any, tmp_path: Path) -> None:
    class Other(Sum):
        def restore(self, state: bytes) -> None:
            raise ValueError("made for windows of 10 s")

    links = {"out": [("sums", "main")]}
    start([ROWS], {"out": Folder(tmp_path / "out", Encoding())}, links, [Step("sums", [("source", "main")], Sum())])
    result, *_ = start([ROWS], {"out": Folder(tmp_path / "out")}, links, [Step("sums", [("source", "main")], Other())])
    assert (result.status, result.read) == ("failed", 0)
    assert result.error.startswith("transform main.sums cannot go on from what it remembered: made for windows of 10 s; undo what changed")


def test_a_transform_that_left_the_yaml_with_open_windows_is_told_of(start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    links = {"out": [("sums", "main")]}
    start([ROWS[:3]], {"out": Folder(tmp_path / "out", Encoding())}, links, [Step("sums", [("source", "main")], Sum())])
    start([ROWS], {"out": Folder(tmp_path / "out")})
    assert "what transform main.sums remembered, such as open windows, is kept but not used" in caplog.text


def test_a_transform_whose_state_asks_to_try_again_fails_the_run(start: Any, tmp_path: Path) -> None:
    class Hesitant(Sum):
        def state(self) -> bytes:
            raise Retry("later")

    steps = [Step("sums", [("source", "main")], Hesitant())]
    result, totals, *_ = start([ROWS], {"out": Folder(tmp_path / "out")}, steps=steps)
    assert (result.status, totals) == ("failed", {})
    assert "a transform asked to try again" in result.error


def test_what_finish_filters_is_counted_and_not_given_out_again(start: Any, tmp_path: Path) -> None:
    class Once(Sum):
        def finish(self, watermark: object) -> pa.RecordBatch:
            found = super().finish(watermark)
            self.seen, done = 0, not self.seen
            return found.slice(1) if done else found

    for _ in range(2):
        steps = [Step("sums", [("source", "main")], Once())]
        _, totals, *_ = start([ROWS[:3]], {"out": Folder(tmp_path / "out")}, steps=steps, finish=True)
    assert totals["filtered"] == {"sums.main: nothing takes it": 1}


def test_progress_of_a_source_that_stumbles_often_resets_its_patience(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out")
    script = [item for row in ROWS for item in ([row], Fail(Retry("locked", after=0.001)))]
    result, *_ = start(script, {"out": sink})
    assert (result.status, sink.ids()) == ("done", list(range(10)))


def test_the_end_waits_no_longer_than_the_grace(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakeward.run.GRACE", 0.2)
    release = threading.Event()

    class Hangs(Folder):
        def deliver(self, parcel: Parcel) -> Receipt:
            release.wait(5)
            raise Refused("released")

    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    began = time.monotonic()
    result, _, _, waiting = start([ROWS], {"out": Hangs(tmp_path / "out")}, once=False)
    timer.join()
    assert (result.status, waiting) == ("stopped", {"out": (3, 10)})
    assert time.monotonic() - began < 3
    release.set()
    for thread in threading.enumerate():
        if thread.name == "courier-out":
            thread.join(5)


# -- a full disk -------------------------------------------------------------------------------------------------------


@contextmanager
def files_below(size: int, seconds: float) -> Iterator[None]:
    """For so long no file may grow beyond a size, which a program meets like a full disk (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    timer = threading.Timer(seconds, resource.setrlimit, (resource.RLIMIT_FSIZE, (soft, hard)))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@define
class Picky:
    """Rejects every row; its dead letters are long."""

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = True

    def apply(self, batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        return {"rejected": rejected(batch, "odd", "long")}


NOISY = [{"id": number, "temperature": float(number), "noise": os.urandom(50_000).hex()} for number in range(10)]


@pytest.mark.parametrize("refused", [False, True], ids=["spool", "record"])
def test_a_batch_that_finds_no_room_is_taken_again_and_counts_once(
    start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, refused: bool
) -> None:
    raw, sums = Folder(tmp_path / "raw"), Folder(tmp_path / "sums", Encoding())
    steps = [Step("sums", [("source", "main")], Sum())] + ([Step("picky", [("source", "main")], Picky())] if refused else [])
    links = {"raw": [("picky" if refused else "source", "main")], "sums": [("sums", "main")]}
    start([], {"raw": raw, "sums": sums}, links, steps)  # the state and the reserve are there
    with files_below(200_000, seconds=0.5):
        result, totals, dead, waiting = start([NOISY], {"raw": raw, "sums": sums}, links, steps, finish=True)
    assert (result.status, result.read, waiting, len(dead)) == ("done", 10, {}, 10 if refused else 0)
    assert raw.ids() == ([] if refused else list(range(10)))
    given = [value for file in sorted(sums.path.iterdir()) for value in pq.read_table(file)["sum"].to_pylist()]
    assert given == [0 + 1 + 2 + 3 + 4, sum(range(10)), sum(range(10))], "the last one is of finish"
    assert totals["rows"]["read"] == 10
    told = [record.message for record in caplog.records if record.message.startswith("disk: ")]
    assert told == [f"disk: {NoRoom.told}", "disk: works again"]
    with State.look(tmp_path / "state") as state:
        assert state
        assert state.troubles() == {}
    assert (tmp_path / "state" / "reserve").exists()


def test_a_run_that_is_to_end_waits_for_room_and_then_ends_with_one_line(start: Any, tmp_path: Path) -> None:
    sink = Folder(tmp_path / "out")
    start([], {"out": sink})
    with files_below(200_000, seconds=60):
        result, totals, *_ = start([NOISY], {"out": sink})
    assert (result.status, result.read, totals) == ("failed", 0, {})
    assert result.error.endswith("make room on its disk")
    with State.look(tmp_path / "state") as state:
        assert state
        assert state.troubles() == {"disk": NoRoom.told}
    result, *_ = start([NOISY], {"out": sink})
    assert (result.status, sink.ids()) == ("done", list(range(10)))
    with State.look(tmp_path / "state") as state:
        assert state
        assert state.troubles() == {}


def test_a_finish_that_finds_no_room_is_done_again_and_gives_each_row_once(start: Any, tmp_path: Path) -> None:
    @define
    class Hoard(Sum):
        """Gives a long row at the end, and forgets it."""

        def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            self.seen += batch.num_rows
            return pa.record_batch({"id": pa.array([], pa.int64()), "noise": pa.array([], pa.string())})

        def finish(self, watermark: object) -> pa.RecordBatch:
            seen, self.seen = self.seen, 0
            return pa.record_batch({"id": pa.array([seen] if seen else [], pa.int64()), "noise": pa.array([NOISE] if seen else [])})

    NOISE = os.urandom(200_000).hex()  # noqa: N806
    sink = Folder(tmp_path / "out", Encoding())
    links, steps = {"out": [("hoard", "main")]}, [Step("hoard", [("source", "main")], Hoard())]
    start([], {"out": sink}, links, steps)
    with files_below(200_000, seconds=0.5):
        result, *_ = start([ROWS], {"out": sink}, links, steps, finish=True)
    assert (result.status, sink.ids()) == ("done", [10])


def test_what_keeps_a_source_from_being_read_is_noted_until_it_works(start: Any, tmp_path: Path) -> None:
    noted: list[dict[str, str]] = []

    class Watch:
        @hookimpl
        def lakeward_batch_recorded(self) -> None:
            with State.look(tmp_path / "state") as state:
                assert state
                noted.append(state.troubles())

    sink = Folder(tmp_path / "out")
    script = [ROWS[:4], *[Fail(Retry("locked", after=0.001)) for _ in range(3)], ROWS[4:]]
    start(script, {"out": sink}, plugins=[Watch()])
    assert noted == [{}, {"source": "locked"}, {"source": "locked"}]
    with State.look(tmp_path / "state") as state:
        assert state
        assert state.troubles() == {}


def test_one_broken_input_is_told_once_although_the_others_give_batches(start: Any, tmp_path: Path, caplog: Any) -> None:
    broken = [Fail(Retry("one of two is broken", after=0.001)) for _ in range(3)]
    script = [ROWS[:2], broken[0], ROWS[2:5], broken[1], ROWS[5:8], broken[2], ROWS[8:]]
    result, *_ = start(script, {"out": Folder(tmp_path / "out")})
    assert result.status == "done"
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("source: ")]
    assert told == ["source: one of two is broken", "source: works again"]
