"""The loop: READ, TRANSFORM, SPOOL, RECORD. Delivery goes on beside it, one worker for each sink."""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from attrs import asdict

from lakeward.bell import Bell
from lakeward.components import END_OF_INPUT, Batch, Parcel, Position, Receipt, Stateful
from lakeward.deadletters import letters
from lakeward.deliver import PATIENCE, Courier, pause_after
from lakeward.errors import LakewardError, Refused, Retry
from lakeward.hookspecs import BatchInfo, RunInfo, RunResult
from lakeward.pipeline import BrokenContract, Outcome, Pipeline, Step
from lakeward.plugins import Plugins
from lakeward.reconcile import NO_ROWS, Fates, fates
from lakeward.secrets import redact
from lakeward.spool import Spool
from lakeward.state import DeadLetter, Recording, Share, State

log = logging.getLogger("lakeward.run")
GRACE = 8.0  # seconds to finish what is in hand after SIGTERM; container runtimes kill after 10


class Run:
    """One execution of a pipeline over a held state."""

    def __init__(self, pipeline: Pipeline, plugins: Plugins, state: State, *, once: bool, finish: bool = False) -> None:
        state.claim(pipeline.config.name)
        self._pipeline, self._plugins, self._state = pipeline, plugins, state
        self._once, self._finish = once, finish
        self._bell = Bell()
        self._spool = Spool(state.directory / "spool")
        self._fates = NO_ROWS
        self._couriers: list[Courier] = []
        checkpoint = state.checkpoint()
        self._position: Position | None = checkpoint.position if checkpoint else None
        self._epoch = checkpoint.epoch if checkpoint else 0
        self._sequence = checkpoint.sequence if checkpoint else 0
        config = pipeline.config
        self.info = RunInfo(uuid.uuid4().hex[:8], config.name, config.file, state.directory, datetime.now(UTC))

    def execute(self) -> RunResult:
        """Run until the source has no more (`once`), until told to stop, or until something fails. Never raises for the expected."""
        try:
            self._plugins.manager.hook.lakeward_run_started(run=self.info)
        except Exception as refusal:
            raise LakewardError(f"a plugin refused the run: {redact(str(refusal))}") from refusal
        error = ""
        try:
            with self._bell.listen_for_signals():
                self._prepare()
                self._read_until_done()
                self._drain()
        except (LakewardError, OSError) as expected:  # a full disk, say: the rows are still in the source
            error = redact(str(expected))
        except Exception as unexpected:
            error = redact(f"{type(unexpected).__name__}: {unexpected}")
            raise
        finally:
            result = self._end(error)
        return result

    def stopped_by(self) -> int:
        """The signal that asked to stop; 0 while none did."""
        return self._bell.stopping

    # -- start and end -------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._spool.clean(self._state.spooled_files())
        for step in self._stateful():
            remembered = self._state.transform_state(self._state_name(step))
            if remembered is not None:
                step.transform.restore(remembered)  # type: ignore[attr-defined]  # Stateful, see _stateful
        for name in sorted(set(self._state.waiting()) - {self._sink_name(sink) for sink in self._pipeline.sinks}):
            log.warning("parcels wait for sink %s, which is not part of this graph; they stay in the spool", name)
        for name, sink in self._pipeline.sinks.items():
            surroundings = (self._state, self._spool, self.info.pipeline, self._bell, self._delivered)
            courier = Courier(self._sink_name(name), sink, *surroundings, patient=not self._once)
            self._couriers.append(courier)
            courier.start()

    def _drain(self) -> None:
        """Let the workers finish: everything that waits (`once`), or what is in hand."""
        if not self.stopped_by():
            names = {courier.sink_name: courier for courier in self._couriers}
            while not self.stopped_by() and any(sink in names and names[sink].is_alive() for sink in self._state.waiting()):
                self._bell.wait(1.0)
        failed = [f"sink {courier.sink_name}: {courier.failure}" for courier in self._couriers if courier.gave_up]
        if failed and not self.stopped_by():
            raise LakewardError("; ".join(failed))

    def _end(self, error: str) -> RunResult:
        end = time.monotonic() + GRACE
        for courier in self._couriers:
            courier.leave()
        for courier in self._couriers:
            courier.join(max(0.0, end - time.monotonic()))
        status: Literal["done", "failed", "stopped"] = "failed" if error else "stopped" if self.stopped_by() else "done"
        delivered = {courier.sink_name: courier.delivered for courier in self._couriers}
        counted = self._fates
        result = RunResult(status, datetime.now(UTC), counted.read, counted.dead, counted.filtered, delivered, error)
        self._plugins.notify("lakeward_run_finished", run=self.info, result=result)
        if not any(courier.is_alive() for courier in self._couriers):
            self._bell.close()
        return result

    # -- READ ----------------------------------------------------------------------------------------------------------

    def _read_until_done(self) -> None:
        config = self._pipeline.config
        failures = 0
        while not self.stopped_by():
            try:
                self._read_what_is_there()
                failures = 0
                if self._once:
                    break
                pause = config.batch.wait.total_seconds()
            except Retry as error:
                failures += 1
                if self._once and failures >= PATIENCE:
                    raise
                pause = pause_after(failures, error.after)
                log.warning("source: %s; next attempt in %.1f s", redact(str(error)), pause)
            self._pause(pause)
        if self._finish and not self.stopped_by():
            self._record_finish()

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.stopped_by() and (left := end - time.monotonic()) > 0:
            self._bell.wait(left)

    def _read_what_is_there(self) -> None:
        batches = self._pipeline.source.read(self._position, self._pipeline.config.batch.rows)
        for batch in self._while_there_is_room(batches):
            if batch.rows.num_rows or batch.rejected is not None or batch.position != self._position:
                self._take(batch)
            if self.stopped_by():
                return

    def _while_there_is_room(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Back pressure: the source is the buffer when the spool is full."""
        cap = self._pipeline.config.spool.max_mb * 1e6
        while not self.stopped_by():
            if self._state.waiting_bytes() >= cap:
                waiting = self._state.waiting()
                ours = [courier for courier in self._couriers if courier.sink_name in waiting]
                if not ours:
                    others = ", ".join(sorted(waiting))
                    raise Refused(f"the spool is full of parcels for {others}, not in this graph; run theirs, or raise spool.max_mb")
                if all(courier.gave_up for courier in ours):
                    return
                self._bell.wait(1.0)
                continue
            batch = next(batches, None)
            if batch is None:
                return
            yield batch

    # -- TRANSFORM, SPOOL, RECORD --------------------------------------------------------------------------------------

    def _take(self, batch: Batch) -> None:
        try:
            outcome = self._pipeline.push(batch.rows) if batch.rows.num_rows else Outcome()
        except Retry as error:  # its state may have changed already: reading the batch again would count rows twice
            raise BrokenContract(f"a transform asked to try again, which only sources and sinks may do: {error}") from error
        refused = batch.rejected.num_rows if batch.rejected is not None else 0
        counted = fates(batch.rows, refused, outcome)
        dead = letters("source", batch.rejected, batch.origin, batch.epoch) if batch.rejected is not None else []
        self._epoch, self._position = batch.epoch, batch.position
        self._record(outcome, counted, dead, batch.origin)

    def _record_finish(self) -> None:
        for outcome in self._pipeline.finish(END_OF_INPUT):
            if outcome.shares or outcome.dead:
                self._record(outcome, NO_ROWS, [], "")

    def _record(self, outcome: Outcome, counted: Fates, dead: list[DeadLetter], origin: str) -> None:
        self._sequence += 1
        shares = self._spool_shares(outcome)
        dead = dead + [letter for stage, rows in outcome.dead for letter in letters(stage, rows, origin, self._epoch)]
        rows_by_sink = {share.sink: share.rows for share in shares}
        totals: dict[tuple[str, str], int] = {}
        for kind, counts in (("rows", asdict(counted)), ("filtered", outcome.filtered), ("spooled", rows_by_sink)):
            totals |= {(kind, name): rows for name, rows in counts.items()}
        states = {self._state_name(step): step.transform.state() for step in self._stateful()}  # type: ignore[attr-defined]  # see _stateful
        self._state.record(Recording(self._sequence, self._epoch, self._position or {}, states, shares, dead, totals))
        self._fates += counted
        self._plugins.notify(
            "lakeward_batch_recorded",
            run=self.info,
            batch=BatchInfo(self._sequence, self._epoch, origin, counted.read, counted.dead, dict(outcome.filtered), rows_by_sink),
        )
        for courier in self._couriers:
            if courier.sink_name in rows_by_sink:
                courier.wake()

    def _spool_shares(self, outcome: Outcome) -> list[Share]:
        """Encode once: sinks that take the same rows in the same encoding share one file."""
        written: dict[tuple[int, object], tuple[str, int, str]] = {}
        numbers = itertools.count()
        shares = []
        now = datetime.now(UTC)
        for name, rows in outcome.shares.items():
            encoding = self._pipeline.sinks[name].encoding
            key = (id(rows), encoding)
            if key not in written:
                file = self._spool.write(f"{self._epoch:04d}-{self._sequence:010d}-{next(numbers)}", rows, encoding, now)
                written[key] = (file.name, file.bytes, file.sha256)
            file_name, size, digest = written[key]
            shares.append(Share(self._sink_name(name), file_name, rows.num_rows, size, digest))
        if written:
            self._spool.sync()
        return shares

    # -- names and news ------------------------------------------------------------------------------------------------

    def _delivered(self, parcel: Parcel, receipt: Receipt) -> None:
        self._plugins.notify("lakeward_parcel_delivered", run=self.info, parcel=parcel, receipt=receipt)

    def _stateful(self) -> list[Step]:
        return [step for step in self._pipeline.steps if isinstance(step.transform, Stateful)]

    def _sink_name(self, name: str) -> str:
        """Sinks of several graphs in one file may share a name; their tokens must not."""
        return name if len(self._pipeline.config.graphs) == 1 else f"{self._pipeline.graph}.{name}"

    def _state_name(self, step: Step) -> str:
        return f"{self._pipeline.graph}.{step.name}"


def dry_run(pipeline: Pipeline, position: Position | None) -> tuple[Outcome, Fates]:
    """Read one batch and transform it; nothing is written or remembered."""
    for batch in pipeline.source.read(position, pipeline.config.batch.rows):
        outcome = pipeline.push(batch.rows) if batch.rows.num_rows else Outcome()
        return outcome, fates(batch.rows, batch.rejected.num_rows if batch.rejected is not None else 0, outcome)
    return Outcome(), NO_ROWS
