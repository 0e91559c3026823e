"""`lakeward health`: does it work now?"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakeward.cli.answer import answer
from lakeward.cli.places import config_state_dir, json_option, pipeline_file, set_option, state_dir_option

if TYPE_CHECKING:
    from lakeward.config import Config
    from lakeward.state import State

EPILOG = """\b
Examples:
  lakeward health pipeline.yaml                      exit code 0: it works; 1: something does not
  lakeward health pipeline.yaml --max-age 10m        ... also when the last batch is older
  lakeward health pipeline.yaml --json

\b
In a container:
  HEALTHCHECK CMD lakeward health /etc/lakeward/pipeline.yaml"""
DAY = timedelta(days=1)


@click.command(short_help="Say whether a run is alive and nothing is wrong.", epilog=EPILOG)
@pipeline_file
@click.option("--max-age", metavar="DURATION", help="How old the last batch may be, such as 10m [default: any age].")
@click.option("--max-wait", metavar="DURATION", default="15m", show_default=True, help="How long rows may wait for a sink.")
@state_dir_option
@set_option
@json_option
def command(file: Path, max_age: str | None, max_wait: str, state_dir: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say whether a run of the pipeline in FILE is alive and nothing is wrong with it; exit code 1 when something is."""
    from lakeward.config import load
    from lakeward.state import State

    oldest, longest = _duration("--max-age", max_age) if max_age else None, _duration("--max-wait", max_wait)
    config = load(file, overrides)
    where = config_state_dir(config, state_dir)
    with State.look(where) as state:
        found = _look(state, config) if state else {"problems": [f"{where}: no run has begun yet"]}
    if state:
        found["problems"].extend(_too_old(found, oldest, longest))
    found = {"state_dir": str(where), "healthy": not found["problems"], **found}
    answer(found, as_json, lambda: "\n".join(_lines(found)))
    sys.exit(0 if found["healthy"] else 1)


def _duration(option: str, text: str) -> timedelta:
    from lakeward.yamlfile.build import duration

    try:
        return duration(text)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None


def _look(state: State, config: Config) -> dict[str, Any]:
    checkpoint, waiting, spooled = state.checkpoint(), state.waiting(), state.waiting_bytes()
    events = [event for event in state.events(1000) if datetime.now(UTC) - datetime.fromisoformat(event["at"]) < DAY]
    process, troubles, cap = _holder(state.directory), state.troubles(), state.room.cap(config.spool.max_mb * 1e6, spooled)
    free, floor = state.room.space()[1], state.room.floor()
    problems = [f"{part}: {problem}" for part, problem in troubles.items()]
    if process is None:
        problems.insert(0, "no run is alive")
    if unread := state.letters.find(-1, "status = 'open' AND row_high IS NOT NULL"):
        ranges = f"{len(unread):,} ranges of rows" if len(unread) > 1 else "a range of rows"
        problems.append(f"source: {ranges} could not be read; repair the input, then replay or discard these dead letters")
    if spooled >= cap > 0:
        problems.append(f"the spool is full, {spooled / 1e6:,.0f} MB wait: reading pauses until sinks take them")
    if free < floor:
        problems.append(f"the disk of the state is nearly full, {free / 1e6:,.0f} MB free: reading pauses")
    return {
        "process": process,
        "last_batch": checkpoint.at if checkpoint else None,
        "waiting": {sink: {"parcels": parcels, "rows": rows} for sink, (parcels, rows) in waiting.items()},
        "waiting_since": _oldest(state),
        "troubles": troubles,
        "events_of_last_day": events,
        "open_dead_letters": sum(state.letters.counts().values()),
        "spool": {"bytes": spooled, "cap": int(cap)},
        "free_disk": free,
        "problems": problems,
    }


def _holder(directory: Path) -> str | None:
    """The number of the process that holds the state now, or "" when it could not be written; None when nobody does."""
    with (directory / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment, which a run that begins now sits out
        except BlockingIOError:
            return lock.read().decode(errors="replace").strip()
    return None


def _oldest(state: State) -> str | None:
    """When the oldest file that waits was written; the folder knows."""
    times = []
    for name in state.checksums():
        try:
            times.append((state.directory / "spool" / name).stat().st_mtime)
        except FileNotFoundError:  # delivered meanwhile
            continue
    return datetime.fromtimestamp(min(times), UTC).isoformat(timespec="seconds") if times else None


def _too_old(found: dict[str, Any], oldest: timedelta | None, longest: timedelta) -> Iterator[str]:
    if oldest is not None and (age := _age(found["last_batch"])) > oldest:
        yield f"the last batch is {_words(age)} old" if found["last_batch"] else "there was no batch yet"
    if found["waiting_since"] and (age := _age(found["waiting_since"])) > longest:
        yield f"rows have waited for {', '.join(found['waiting'])} for {_words(age)}"


def _age(at: str | None) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(at) if at else timedelta.max


def _words(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield "healthy" if found["healthy"] else "not healthy:"
    yield from (f"  {problem}" for problem in found["problems"])
    if "spool" not in found:
        return
    process, spool = found["process"], found["spool"]
    waiting = ", ".join(f"{sink} {one['rows']:,} rows" for sink, one in found["waiting"].items())
    since = f" (for {_words(_age(found['waiting_since']))})" if found["waiting_since"] else ""
    lines = {
        "run": "none" if process is None else f"process {process}",
        "last batch": f"{_words(_age(found['last_batch']))} ago" if found["last_batch"] else "none yet",
        "waiting": f"{waiting}{since}" if waiting else "nothing",
        "spool": f"{spool['bytes'] / 1e6:,.1f} of at most {spool['cap'] / 1e6:,.1f} MB",
        "free disk": f"{found['free_disk'] / 1e6:,.0f} MB",
        "dead letters": f"{found['open_dead_letters']:,} open",
        "events": f"{len(found['events_of_last_day']):,} in the last day",
    }
    yield from (f"{name + ':':14}{text}" for name, text in lines.items())
    yield from (f"  {event['at']} {event['kind']}: {event['detail']}" for event in found["events_of_last_day"][:5])
