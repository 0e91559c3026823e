"""A log line for each thing that happens in a run: a short message for people, `event` and `fields` for JSON logs."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from lakeward import Parcel, Receipt, hookimpl
from lakeward.hookspecs import BatchInfo, RunInfo, RunResult

LAKEWARD_API = (1, 0)
log = logging.getLogger("lakeward.run")


@hookimpl
def lakeward_run_started(run: RunInfo) -> None:
    """Say which run of what begins."""
    _say(
        logging.INFO,
        f"{run.pipeline}: run {run.id} started",
        "run_started",
        run,
        config=str(run.config),
        state_dir=str(run.state_dir),
        started=run.started.isoformat(),
    )


@hookimpl
def lakeward_batch_recorded(run: RunInfo, batch: BatchInfo) -> None:
    """Say where the rows of the batch go; a warning when some became dead letters."""
    parts = [f"{batch.read:,} rows read", _each(batch.sinks)]
    parts += [f"{count:,} filtered ({rule})" for rule, count in batch.filtered.items() if count]
    parts += [f"{batch.dead:,} dead letters"] * bool(batch.dead)
    _say(
        logging.WARNING if batch.dead else logging.INFO,
        f"{run.pipeline}: batch {batch.sequence}: " + ", ".join(filter(None, parts)),
        "batch_recorded",
        run,
        sequence=batch.sequence,
        epoch=batch.epoch,
        origin=batch.origin,
        read=batch.read,
        dead=batch.dead,
        filtered=dict(batch.filtered),
        sinks=dict(batch.sinks),
    )


@hookimpl
def lakeward_parcel_delivered(run: RunInfo, parcel: Parcel, receipt: Receipt) -> None:
    """Say which sink has which parcel, and where."""
    _say(
        logging.INFO,
        f"{run.pipeline}: {parcel.token.sink} has {parcel.rows:,} rows of batch {parcel.token.sequence}: {receipt.location}",
        "parcel_delivered",
        run,
        sink=parcel.token.sink,
        sequence=parcel.token.sequence,
        token=parcel.token.name,
        rows=parcel.rows,
        sha256=parcel.sha256,
        location=receipt.location,
        details=dict(receipt.details),
    )


@hookimpl
def lakeward_run_finished(run: RunInfo, result: RunResult) -> None:
    """Say how the run ended; an error when it failed."""
    seconds = (result.finished - run.started).total_seconds()
    summary = f"{run.pipeline}: run {run.id} {result.status} after {seconds:.1f} s, {result.read:,} rows read"
    _say(
        logging.ERROR if result.status == "failed" else logging.INFO,
        summary + (f": {result.error}" if result.error else ""),
        "run_finished",
        run,
        status=result.status,
        seconds=round(seconds, 3),
        read=result.read,
        filtered=result.filtered,
        dead=result.dead,
        delivered=dict(result.delivered),
        error=result.error,
    )


def _each(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} for {name}" for name, count in rows.items())


def _say(level: int, message: str, event: str, run: RunInfo, **fields: object) -> None:
    log.log(level, "%s", message, extra={"event": event, "fields": {"pipeline": run.pipeline, "run": run.id, **fields}})
