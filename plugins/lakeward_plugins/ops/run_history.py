"""What ran when, and how it ended: `history.jsonl` in the state directory, and `lakeward history` to read it.

One line when a run starts, one when it ends; both carry the run's id and are put together when read. A run whose second
line never came was killed, or still runs.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from lakeward import hookimpl
from lakeward.hookspecs import RunInfo, RunResult

LAKEWARD_API = (1, 0)
FILE = "history.jsonl"
MAX_BYTES = 1_000_000  # some 2,500 runs: more than a week of one every five minutes, years of one that goes on
MAX_ERROR = 500  # characters; the log has the rest
EPILOG = """\b
Examples:
  lakeward history pipeline.yaml                 the last 20 runs, newest first
  lakeward history pipeline.yaml --limit 1000
  lakeward history pipeline.yaml --json"""
log = logging.getLogger("lakeward.history")


@hookimpl(trylast=True)
def lakeward_run_started(run: RunInfo) -> None:
    """Write the first line; last of all plugins, because a run that one of them refuses never ends."""
    process = {"pid": os.getpid(), "born": _born(os.getpid()), "host": os.uname().nodename}
    try:
        _halve_when_large(run.state_dir / FILE)
        _append(run.state_dir / FILE, {"run": run.id, "started": run.started.isoformat(), **process})
    except OSError as error:  # the rows matter more than the record of their runs
        log.warning("the history of runs cannot be written: %s", error)


@hookimpl
def lakeward_run_finished(run: RunInfo, result: RunResult) -> None:
    """Write the second line, complete in itself in case the first one is lost."""
    line = {
        "run": run.id,
        "started": run.started.isoformat(),
        "finished": result.finished.isoformat(),
        "status": result.status,
        "read": result.read,
        "delivered": dict(result.delivered),
        "filtered": result.filtered,
        "dead": result.dead,
        "error": result.error[:MAX_ERROR],
    }
    _append(run.state_dir / FILE, line)


@hookimpl
def lakeward_commands() -> list[click.Command]:
    """`lakeward history`."""
    return [history]


@click.command(short_help="Show earlier runs and how they ended.", epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="Show the newest N runs.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Where the state lives [default: .lakeward/NAME beside FILE].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def history(file: Path, limit: int, state_dir: Path | None, as_json: bool) -> None:
    """Show the runs of the pipeline in FILE, newest first.

    Besides done, stopped and failed, a run is "running"; or "killed", when it ended without a word (kill -9, a power
    cut); or "unknown", when it was started on another machine or in another container and has not said that it ended.
    """
    from lakeward.cli.places import state_dir_of  # observing a run must not pay for the command line
    from lakeward.cli.table import table

    directory = state_dir_of(file, state_dir)
    runs = read_history(directory)[::-1][:limit]
    if as_json:
        click.echo(json.dumps(runs, indent=2, ensure_ascii=False))
    elif runs:
        headers = ("run", "started", "duration", "read", "delivered", "filtered", "dead", "status", "error")
        click.echo(table(headers, [_cells(run) for run in runs]))
    else:
        click.echo(f"{directory}: has not run yet")


# -- reading -----------------------------------------------------------------------------------------------------------


def read_history(directory: Path) -> list[dict[str, Any]]:
    """All runs that a state directory knows, oldest first."""
    runs: dict[str, dict[str, Any]] = {}
    for line in _lines(directory / FILE):
        runs.setdefault(line["run"], {}).update(line)
    newest = next(reversed(runs), "")
    return [_in_words(run, may_go_on=name == newest) for name, run in runs.items()]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line; a power cut may have torn some."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = json.loads(line)
            _seconds(entry)
            yield {**entry, "run": str(entry["run"])}
        except (ValueError, TypeError, KeyError):
            click.echo(f"{path}:{number}: skipped, not a whole line; a power cut may have torn it", err=True)


def _in_words(run: dict[str, Any], *, may_go_on: bool) -> dict[str, Any]:
    """One run as it is shown. Only the newest may go on: a run holds the state for itself."""
    return {
        "run": run["run"],
        "started": run["started"],
        "finished": run.get("finished"),
        "seconds": _seconds(run),
        "status": run.get("status") or (_without_end(run) if may_go_on else "killed"),
        **{count: run.get(count) for count in ("read", "delivered", "filtered", "dead")},
        "error": run.get("error", ""),
    }


def _without_end(run: dict[str, Any]) -> str:
    if run.get("host") != os.uname().nodename:
        return "unknown"
    born = _born(run["pid"])
    return "running" if born is not None and born == run.get("born") else "killed"


def _seconds(run: dict[str, Any]) -> float | None:
    started = datetime.fromisoformat(run["started"])
    return (datetime.fromisoformat(run["finished"]) - started).total_seconds() if "finished" in run else None


def _cells(run: dict[str, Any]) -> list[object]:
    started = datetime.fromisoformat(run["started"]).astimezone(UTC)
    seconds = run["seconds"]
    duration = "" if seconds is None else f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
    delivered = ", ".join(f"{sink} {rows:,}" for sink, rows in (run["delivered"] or {}).items())
    error = " ".join(run["error"].split())
    return [
        run["run"], f"{started:%Y-%m-%d %H:%M:%SZ}", duration, run["read"], delivered, run["filtered"], run["dead"], run["status"], error
    ]  # fmt: skip


# -- writing -----------------------------------------------------------------------------------------------------------


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("ab+") as file:
        torn = file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
        file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")  # one write, so that a reader sees a whole line


def _halve_when_large(path: Path) -> None:
    """Keep the newest half, whole or not at all."""
    if not path.exists() or path.stat().st_size <= MAX_BYTES:
        return
    lines = path.read_bytes()
    shorter = path.with_suffix(".tmp")
    with shorter.open("wb") as file:
        file.write(lines[lines.find(b"\n", len(lines) // 2) + 1 :])
        file.flush()
        os.fsync(file.fileno())
    shorter.replace(path)


def _born(pid: int) -> str | None:
    """When a process started, as the kernel counts; None without such a process. A process id alone is soon used again after a reboot."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass  # it is there, and somebody else's
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""  # no /proc on this system: the id must do
    return None if fields[0] == "Z" else fields[19]  # a killed process stays as a zombie in a container without an init
