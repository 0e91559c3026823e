"""The loop: READ, TRANSFORM, SPOOL, RECORD. Delivery goes on beside it, one worker for each sink.

A batch goes straight down: `_read_what_is_there`, `_take`, `_record`, `_spool_shares`; from state.db a `Courier` takes its parcels.
"""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Literal

from attrs import asdict

from lakeward.bell import Bell
from lakeward.components import END_OF_INPUT, Batch, Event, Keeping, Parcel, Position, Receipt
from lakeward.config import UNNAMED
from lakeward.deadletters.box import Closing, DeadLetter
from lakeward.deadletters.letters import all_letters, require_few, require_room
from lakeward.deadletters.replay import Replay, replays
from lakeward.deliver import PATIENCE, Courier
from lakeward.errors import LakewardError, NoRoom, Retry
from lakeward.hookspecs import BatchInfo, RunInfo, RunResult
from lakeward.pacing import LONGEST_PAUSE, pause_after
from lakeward.pipeline import BrokenContract, Outcome, Pipeline
from lakeward.plugins import Plugins
from lakeward.reconcile import NO_ROWS, NOTHING, Fates, fates, transformed
from lakeward.recording import Recording, Share
from lakeward.remembered import restore, stateful
from lakeward.secrets import redact
from lakeward.spool import Spool
from lakeward.state import State
from lakeward.statefile import Checkpoint

log = logging.getLogger("lakeward.run")
GRACE = 7.0  # seconds to finish what is in hand after SIGTERM
LAST = 8.0  # seconds after which the process is gone, whatever is in hand; container runtimes kill after 10


class Run:
    """One execution of a pipeline over a held state."""

    def __init__(
        self, pipeline: Pipeline, plugins: Plugins, state: State, bell: Bell, *, once: bool, finish: bool = False, read: bool = True
    ) -> None:
        """`bell` is rung by who wants it to stop. It ends `once` all is delivered; without `read` it only takes marked dead letters."""
        self._pipeline, self._plugins, self._state, self._bell = pipeline, plugins, state, bell
        self._once, self._finish, self._read = once, finish, read
        self._fates = NO_ROWS
        self._couriers: list[Courier] = []
        self._last = Checkpoint()  # what was recorded last
        self._unrecorded: list[str] = []  # files of the batch in hand
        self._stale = False  # a batch was taken and not recorded, so transforms must go back
        self._troubles: dict[str, str] = {}
        self._heals = 0.0  # when a batch alone says that the source works again
        config = pipeline.config
        self.info = RunInfo(uuid.uuid4().hex[:8], config.name, config.file, state.directory, datetime.now(UTC))
        state.claim(config.name)
        self._spool = Spool(state.directory / "spool")

    @property
    def abandoned(self) -> bool:
        """True when a worker still had a parcel in hand after the grace: end the process, and close nothing under its hands."""
        return any(courier.is_alive() for courier in self._couriers)

    def execute(self) -> RunResult:
        """Run until the source has no more (`once`), until told to stop, or until something fails.

        What is expected to fail is told in the result. Raises LakewardError when a plugin refuses the run before it begins.
        """
        try:
            self._plugins.manager.hook.lakeward_run_started(run=self.info)
        except Exception as refusal:
            raise LakewardError(f"a plugin refused the run: {redact(str(refusal))}") from refusal
        self._bell.grace, error = LAST, ""
        try:
            self._prepare()
            if self._read:
                self._read_until_done()
            else:
                self._replay()
            self._drain()
        except (LakewardError, OSError) as expected:  # a full disk, say: the rows are still in the source
            error = redact(str(expected))
        except BaseException as unexpected:
            error = redact(f"{type(unexpected).__name__}: {unexpected}")
            if not isinstance(unexpected, SystemExit):  # of a plugin: it must not end this process as if all was well
                raise
        finally:
            result = self._end(error)
        return result

    # -- start and end -------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._spool.clean(self._state.checksums())
        sinks = {self._sink_name(name): sink for name, sink in self._pipeline.sinks.items()}
        for folder, part in {"source": self._pipeline.source, **{f"sinks/{name}": sink for name, sink in sinks.items()}}.items():
            if isinstance(part, Keeping):
                part.keep_in(self._state.directory / folder)
        self._resume()
        for name in sorted(self._state.remembering() - stateful(self._pipeline).keys()):
            if name.startswith(f"{self._pipeline.graph}."):
                log.warning("what transform %s remembered, such as open windows, is kept but not used: it has left the YAML", name)
        for name in sorted(set(self._state.waiting()) - sinks.keys()):
            log.warning("parcels wait for sink %s, which is not part of this graph; they stay in the spool", name)
        rest = (self.info.pipeline, self._bell, self._delivered, not self._once, self._pipeline.config.dead_letters)
        self._couriers = [Courier(name, sink, self._state, self._spool, *rest) for name, sink in sinks.items()]
        for courier in self._couriers:
            courier.start()

    def _resume(self) -> None:
        """Go on from what is recorded: at the start, and after a batch that could not be recorded."""
        if self._stale:
            self._pipeline = self._pipeline.fresh()
        self._last = self._state.checkpoint() or Checkpoint()
        restore(self._pipeline, self._state)
        self._stale = False

    def _drain(self) -> None:
        """Let the workers finish: everything that waits (`once`), or what is in hand."""
        while not self._stopping() and self._somebody_delivers():
            self._bell.wait(1.0)
        if not self._stopping():
            self._require_couriers()

    def _somebody_delivers(self) -> bool:
        return any(self._state.awaits(courier.sink_name) and not courier.gave_up for courier in self._couriers)

    def _require_couriers(self) -> None:
        failed = [f"sink {courier.sink_name}: {courier.failure}" for courier in self._couriers if courier.gave_up]
        if failed:
            raise LakewardError("; ".join(failed))

    def _end(self, error: str) -> RunResult:
        end = min(time.monotonic(), self._bell.asked) + GRACE
        for courier in self._couriers:
            courier.leave()
        for courier in self._couriers:
            courier.join(max(0.0, end - time.monotonic()))
        status: Literal["done", "failed", "stopped"] = "failed" if error else "stopped" if self._stopping() else "done"
        delivered = {courier.sink_name: courier.delivered for courier in self._couriers}
        result = RunResult(status, datetime.now(UTC), self._fates.read, self._fates.dead, self._fates.filtered, delivered, error)
        self._plugins.notify("lakeward_run_finished", run=self.info, result=result)
        return result

    # -- READ ----------------------------------------------------------------------------------------------------------

    def _read_until_done(self) -> None:
        config = self._pipeline.config
        failures = 0
        while not self._stopping():
            before = self._last.sequence
            try:
                self._read_what_is_there()
                failures = 0
                if self._once:
                    self._record_finish()
                    break
                pause = config.batch.wait.total_seconds()
            except Retry as error:
                failures = failures + 1 if self._last.sequence == before else 1
                if self._once and failures >= PATIENCE:
                    raise
                pause = pause_after(failures, error, least=0.0 if self._once else config.batch.wait.total_seconds())
                self._heals = time.monotonic() + pause + LONGEST_PAUSE
                full = isinstance(error, NoRoom)
                self._trouble("disk" if full else "source", NoRoom.told if full else redact(str(error)))
            self._pause(pause)
        for step, keys in self._pipeline.waiting().items():
            log.info("%s: %d rows wait in %s for those that follow; --finish would let them go", self.info.pipeline, len(keys), step)

    def _read_what_is_there(self) -> None:
        if self._stale:
            self._resume()
        batches = self._pipeline.source.read(self._last.position, self._pipeline.config.batch.rows)
        for batch in self._while_there_is_room(batches):
            if batch.rows.num_rows or batch.rejected is not None or batch.events or batch.position != self._last.position:
                self._take(batch)
                self._goes_on(to_the_end=False)
            del batch  # here and where it comes from, it would take memory while the next one is read
            if self._stopping():
                return
        self._goes_on(to_the_end=True)

    def _while_there_is_room(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Back pressure: the source is the buffer when the spool is full. Raises NoRoom when the disk is, or nearly."""
        while not self._stopping():
            if not self._once:
                self._require_couriers()
            self._state.room.require()
            if not self._spool_is_full():
                self._replay()
                batch = next(batches, None)
                if batch is None:
                    return
                yield batch
                del batch
            elif self._somebody_delivers() or not self._spool_is_full():  # looked at in this order, both are of one moment
                self._bell.wait(1.0)
            else:
                self._require_couriers()
                others = f"nobody empties it: {', '.join(self._state.waiting())} is not part of this graph"
                raise LakewardError(f"the spool is full, and {others}; put the sink back, raise spool.max_mb, or free disk")

    def _spool_is_full(self) -> bool:
        waiting = self._state.waiting_bytes()
        return waiting > 0 and waiting >= self._state.room.cap(self._pipeline.config.spool.max_mb * 1e6, waiting)

    # -- TRANSFORM, SPOOL, RECORD --------------------------------------------------------------------------------------

    def _take(self, batch: Batch) -> None:
        """TRANSFORM, then the rest. After this the batch is delivered, whatever happens."""
        with self._all_or_nothing():
            outcome, counted = transformed(self._pipeline, batch)
            unread = [("source", batch.rejected)] if batch.rejected is not None else []
            dead = all_letters(unread + outcome.dead, batch.origin, batch.epoch)
            require_few(self._pipeline.config.dead_letters, dead, counted.dead, counted.read)
            self._record(self._next(batch.position, batch.epoch), outcome, counted, dead, batch.origin, batch.events)

    def _next(self, position: Position | None, epoch: int) -> Checkpoint:
        return Checkpoint(position, epoch, self._last.sequence + 1)

    def _record(
        self, now: Checkpoint, outcome: Outcome, counted: Fates, dead: Sequence[DeadLetter], origin: str, events: Sequence[Event] = (),
        replay: Replay | None = None,
    ) -> None:  # fmt: skip
        """SPOOL and RECORD, then wake those who deliver."""
        require_room(self._pipeline.config.dead_letters, self._state.letters, dead)
        shares = self._spool_shares(outcome, now)
        rows_by_sink = {share.sink: share.rows for share in shares}
        totals = Counter(dict(replay.totals) if replay else {})
        for kind, counts in (("rows", asdict(counted)), ("filtered", outcome.filtered), ("spooled", rows_by_sink)):
            totals.update({(kind, name): rows for name, rows in counts.items() if rows or name != "held"})  # few hold rows back
        states = {name: transform.state() for name, transform in stateful(self._pipeline).items()}
        closed = replay.closing if replay else Closing()
        self._state.record(Recording(now.sequence, now.epoch, now.position, states, shares, dead, totals, events, origin, closed))
        self._last = now
        self._unrecorded.clear()
        for event in events:
            log.warning("source: %s: %s", event.kind, redact(event.detail))
        counted = NO_ROWS if replay else counted  # its rows were read in an earlier run
        self._fates += counted
        info = BatchInfo(now.sequence, now.epoch, origin, counted.read, counted.dead, dict(outcome.filtered), rows_by_sink)
        self._plugins.notify("lakeward_batch_recorded", run=self.info, batch=info)
        for courier in self._couriers:
            if courier.sink_name in rows_by_sink:
                courier.wake()

    def _spool_shares(self, outcome: Outcome, at: Checkpoint) -> list[Share]:
        """Encode once: sinks that take the same rows in the same encoding share one file."""
        written: dict[tuple[int, object], tuple[str, int, str]] = {}
        numbers = itertools.count()
        shares = []
        now = datetime.now(UTC)
        for name, rows in outcome.shares.items():
            encoding = self._pipeline.sinks[name].encoding
            key = (id(rows), encoding)
            if key not in written:
                file = self._spool.write(f"{at.epoch:04d}-{at.sequence:010d}-{next(numbers)}", rows, encoding, now)
                written[key] = (file.name, file.bytes, file.sha256)
                self._unrecorded.append(file.name)
            file_name, size, digest = written[key]
            shares.append(Share(self._sink_name(name), file_name, rows.num_rows, size, digest))
        if written:
            self._spool.sync()
        return shares

    # -- other batches -------------------------------------------------------------------------------------------------

    def _record_finish(self) -> None:
        """Each outcome is recorded with all states, so a crash in between leaves the rest for the next `--finish`."""
        if not self._finish or self._stopping():
            return
        with self._all_or_nothing():
            for outcome in self._pipeline.finish(END_OF_INPUT):
                counted = fates(NOTHING, 0, outcome)
                if outcome.shares or outcome.dead or outcome.filtered or counted != NO_ROWS:
                    now = self._next(self._last.position, self._last.epoch)
                    self._record(now, outcome, counted, all_letters(outcome.dead, "", now.epoch), "")

    def _replay(self) -> None:
        """Dead letters that a person wants to go through again."""
        with self._all_or_nothing():
            for again in replays(self._pipeline, self._state.letters, {self._sink_name(sink): sink for sink in self._pipeline.sinks}):
                now = self._next(self._last.position, again.epoch)
                self._record(now, again.outcome, again.counted, again.dead, again.origin, replay=again)
                if self._stopping():  # the others stay marked for the next run
                    return

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """What transforms took is recorded or, when there is no room, taken again later by transforms as they were before."""
        try:
            yield
        except NoRoom:
            self._stale = True
            while self._unrecorded:
                self._spool.drop(self._unrecorded.pop())
            self._state.make_room()
            log.info("a batch found no room half-way; it is taken again later")
            raise
        except Retry as error:  # states may have changed already: reading the batch again would count rows twice
            raise BrokenContract(f"a transform asked to try again, which only sources and sinks may do: {error}") from error

    # -- what keeps READ from going on ---------------------------------------------------------------------------------

    def _trouble(self, part: str, problem: str) -> None:
        """Note what keeps READ from going on, or "" that it goes on: told when it changes, written as soon as there is room to."""
        if problem != self._troubles.get(part, ""):
            log.warning("%s: %s", part, problem or "works again")
            self._troubles[part] = problem
        with suppress(NoRoom):
            self._state.trouble(part, problem)

    def _goes_on(self, *, to_the_end: bool) -> None:
        """A batch says nothing about other inputs of the source; a read to the end does, or a long one without trouble."""
        for part in ("disk", "source") if to_the_end or time.monotonic() > self._heals else ("disk",):
            self._trouble(part, "")

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping() and (left := end - time.monotonic()) > 0:
            self._bell.wait(left)
            if not self._once:
                self._require_couriers()

    # -- names and news ------------------------------------------------------------------------------------------------

    def _delivered(self, parcel: Parcel, receipt: Receipt) -> None:
        self._plugins.notify("lakeward_parcel_delivered", run=self.info, parcel=parcel, receipt=receipt)

    def _stopping(self) -> bool:
        return bool(self._bell.stopping)

    def _sink_name(self, name: str) -> str:
        """Sinks of several graphs in one file may share a name; their tokens must not. It stays when graphs are added."""
        return name if self._pipeline.graph == UNNAMED else f"{self._pipeline.graph}.{name}"
