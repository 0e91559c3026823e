"""`lakeward dead-letters`: the rows that were refused; look at them, send them again, or give them up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakeward.cli.answer import answer
from lakeward.cli.in_order import InOrder
from lakeward.cli.logs import start_logging
from lakeward.cli.places import config_state_dir, json_option, pipeline_file, select_option, set_option, state_dir_of, state_dir_option
from lakeward.cli.rereading import with_reason
from lakeward.cli.running import end_process, exit_code, listening, planned, show_progress
from lakeward.cli.table import table
from lakeward.errors import LakewardError, StateInUse

if TYPE_CHECKING:
    from lakeward.config import Config
    from lakeward.state import State

LONGEST, SHOWN = 500, 20  # characters of a value, and letters that stay open, that people are shown
RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")
STATUSES = ("open", "replay", "replayed", "discarded")
EPILOG = """\b
Examples:
  lakeward dead-letters list pipeline.yaml            which rows were refused, and why
  lakeward dead-letters show pipeline.yaml 17         the values of one
  lakeward dead-letters replay pipeline.yaml 17       once more, after the cause was mended
  lakeward dead-letters discard pipeline.yaml 17 --reason "test reading of the installer" """
SHOW_EPILOG = """\b
Examples:
  lakeward dead-letters show pipeline.yaml 17
  lakeward dead-letters show pipeline.yaml 17 --json"""
LIST_EPILOG = """\b
Examples:
  lakeward dead-letters list pipeline.yaml
  lakeward dead-letters list pipeline.yaml --stage source --reason type --limit 200
  lakeward dead-letters list pipeline.yaml --status discarded --json"""
REPLAY_EPILOG = """\b
Examples:
  lakeward dead-letters replay pipeline.yaml 17 20-25
  lakeward dead-letters replay pipeline.yaml --stage source --reason type    after `types:` was corrected
  lakeward dead-letters replay pipeline.yaml --all"""
DISCARD_EPILOG = """\b
Examples:
  lakeward dead-letters discard pipeline.yaml 17 20-25 --reason "test readings of the installer"
  lakeward dead-letters discard pipeline.yaml --stage "sink alerts" --reason "older than a day" """


def _ranges(_: click.Context, __: click.Parameter, given: Sequence[str]) -> list[tuple[int, int]]:
    """First and last of each."""
    matches = [RANGE.fullmatch(text) for text in given]
    for text, match in zip(given, matches, strict=True):
        if not match:
            raise click.BadParameter(f"{text!r} is not the id of a dead letter, nor a range such as 20-25")
    return [(int(match[1]), int(match[2] or match[1])) for match in matches if match]


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--stage` and `--origin`."""
    function = click.option("--origin", help="Only those from this input of the source.")(function)
    return click.option("--stage", help="Only those from here: source, a transform, or `sink NAME`.")(function)


ids_argument = click.argument("ids", nargs=-1, callback=_ranges, metavar="[ID]...")


@click.group(cls=InOrder, short_help="Look at refused rows, replay or discard them.", epilog=EPILOG)
def command() -> None:
    """Look at rows that were refused, send them again, or give them up.

    A dead letter is open until its row is replayed or discarded. Then its values are dropped, and its key and reason are kept.
    """


@command.command("list", short_help="List the newest dead letters.", epilog=LIST_EPILOG)
@pipeline_file
@filters
@click.option("--reason", help="Only those with this reason, such as type or sink_rejected.")
@click.option("--status", type=click.Choice([*STATUSES, "all"]), help="Only those  [default: open, and marked for replay]")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Show so many.")
@state_dir_option
@json_option
def list_(
    file: Path, stage: str | None, origin: str | None, reason: str | None, status: str | None, limit: int, state_dir: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """List the newest dead letters of the pipeline in FILE; also while it runs."""
    from lakeward.state import State

    statuses = STATUSES if status == "all" else (status,) if status else ("open", "replay")
    where, values = _where((), statuses, stage=stage, origin=origin, reason=reason)
    with State.look(state_dir_of(file, state_dir)) as state:
        letters = state.letters.find(limit, where, *values) if state else []
        counts = state.letters.counts(where, *values) if state else {}
    groups = [{"stage": stage, "reason": reason, "letters": count} for (stage, reason), count in counts.items()]
    total = sum(counts.values())
    found = {"total": total, "groups": groups, "letters": [_shown(letter) for letter in letters]}
    answer(found, as_json, lambda: _list_in_words(total, groups, letters))


@command.command(short_help="Show all of one, with the values of its row.", epilog=SHOW_EPILOG)
@pipeline_file
@click.argument("number", type=click.IntRange(1, 10**18), metavar="ID")
@state_dir_option
@json_option
def show(file: Path, number: int, state_dir: Path | None, as_json: bool) -> None:
    """Show all of one dead letter, with the values of its row."""
    from lakeward.state import State

    directory = state_dir_of(file, state_dir)
    with State.look(directory) as state:
        letters = state.letters.find(1, "id = ?", number) if state else []
    if not letters:
        raise LakewardError(f"{directory} has no dead letter {number}; see `lakeward dead-letters list {file}`")
    found = _shown(letters[0])
    values = {name: json.dumps(value, ensure_ascii=False) for name, value in (found["row"] or {}).items()}
    lines = [f"{name:<11} {value}" for name, value in found.items() if name != "row" and value not in (None, "")]
    row = [f"  {name}: {_shortened(value)}" for name, value in values.items()]
    answer(found, as_json, lambda: "\n".join([*lines, "row", *row] if row else lines))


@command.command(short_help="Send the rows of open ones through the pipeline again.", epilog=REPLAY_EPILOG)
@pipeline_file
@ids_argument
@click.option("--all", "everything", is_flag=True, help="All open ones.")
@filters
@click.option("--reason", help="Only those with this reason, such as type or sink_rejected.")
@select_option
@state_dir_option
@set_option
@json_option
def replay(
    file: Path, ids: list[tuple[int, int]], everything: bool, stage: str | None, origin: str | None, reason: str | None,
    select: str | None, state_dir: Path | None, overrides: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Send the rows of open dead letters through the pipeline in FILE as it is now, each from where it was refused.

    A row of the source goes through all of it, one of a transform into that transform, one of a sink to that sink alone. What is
    refused again stays open and says why. While the pipeline runs, that run takes them before its next batch.
    """
    start_logging("text", "warning")
    from lakeward.config import load
    from lakeward.state import State

    config = load(file, overrides)
    directory = config_state_dir(config, state_dir)
    where, values = _chosen(ids, ("open", "replay"), everything, stage=stage, origin=origin, reason=reason)
    with State.look(directory) as state:
        numbers = [letter["id"] for letter in _some(state, where, values)]
    try:
        error, code = _replay_here(config, select, directory, numbers)
    except StateInUse:
        with State.beside(directory) as state:
            state.letters.mark(numbers)
        told = {"marked": len(numbers), "taken_by": "the run that is alive"}
        answer(told, as_json, lambda: f"{len(numbers):,} dead letters marked; the run that is alive takes them before its next batch")
        return
    with State.look(directory) as state:
        letters = _some(state, "id IN (SELECT value FROM json_each(?))", [json.dumps(numbers)])
    left = [{name: letter[name] for name in ("id", "status", "note")} for letter in letters if letter["status"] != "replayed"]
    done = len(numbers) - len(left)
    found = {"marked": len(numbers), "taken_by": "this command", "replayed": done, "left": left, "error": error}
    lines = [
        f"{done:,} of {len(numbers):,} dead letters replayed",
        *(f"  {one['id']} stays {one['status']}: {one['note']}" for one in left[:SHOWN]),
        *[f"  and {len(left) - SHOWN:,} more; --json names all"] * (len(left) > SHOWN),
    ]
    answer(found, as_json, lambda: "\n".join(lines))
    if error:
        click.echo(f"lakeward: {error}", err=True)
    if code or left:
        raise click.exceptions.Exit(code or 1)


def _replay_here(config: Config, select: str | None, directory: Path, numbers: Sequence[int]) -> tuple[str, int]:
    """A run that reads nothing, but takes what is marked. What failed, if anything did, and the exit code."""
    from lakeward.run import Run
    from lakeward.state import State

    with listening() as bell, State.hold(directory) as state, planned(config, select) as (pipeline, plugins):
        state.letters.mark(numbers)
        show_progress(plugins, "text")
        run = Run(pipeline, plugins, state, bell, once=True, read=False)
        result = run.execute()
        code = exit_code(result, bell)
        if run.abandoned:
            end_process(code)
        stopped = f"stopped by signal {bell.stopping}; the next run takes what is left" if result.status == "stopped" else ""
        return result.error or stopped, code


@command.command(short_help="Give up the rows of open ones.", epilog=DISCARD_EPILOG)
@pipeline_file
@ids_argument
@filters
@click.option("--reason", required=True, metavar="WHY", help="Why these rows are not needed; kept with each of them.")
@state_dir_option
@json_option
def discard(
    file: Path, ids: list[tuple[int, int]], stage: str | None, origin: str | None, reason: str, state_dir: Path | None, as_json: bool
) -> None:
    """Give up the rows of open dead letters, by id or by stage and origin. They cannot be had back; also while the pipeline runs."""
    from lakeward.components import Event
    from lakeward.state import State

    reason = with_reason(reason)
    where, values = _chosen(ids, ("open",), everything=False, stage=stage, origin=origin)
    with State.beside(state_dir_of(file, state_dir)) as state:
        done = state.letters.discard([letter["id"] for letter in _some(state, where, values)], reason)
        state.tell(Event("dead_letters_discarded", reason, done))
    answer({"discarded": done}, as_json, lambda: f"{done:,} dead letters discarded")


# -- which -------------------------------------------------------------------------------------------------------------


def _chosen(ids: Sequence[tuple[int, int]], statuses: Sequence[str], everything: bool, **columns: str | None) -> tuple[str, list[Any]]:
    if not (ids or everything or any(columns.values())):
        raise click.UsageError("name dead letters by id, or choose them with options such as --stage")
    return _where(ids, statuses, **columns)


def _where(ids: Sequence[tuple[int, int]], statuses: Sequence[str], **columns: str | None) -> tuple[str, list[Any]]:
    """SQL for the letters that are meant, and its values."""
    given = {name: value for name, value in columns.items() if value is not None}
    parts = [f"status IN ({', '.join('?' * len(statuses))})", *(f"{name} = ?" for name in given)]
    if ids:
        parts.append(f"({' OR '.join(['id BETWEEN ? AND ?'] * len(ids))})")
    return " AND ".join(parts), [*statuses, *given.values(), *(number for both in ids for number in both)]


def _some(state: State | None, where: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    found = state.letters.find(-1, where, *values) if state else []
    if not found:
        raise LakewardError("there is no open dead letter like that; see `lakeward dead-letters list`")
    return found


# -- in words ----------------------------------------------------------------------------------------------------------


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters; --json has all)"


def _shown(letter: dict[str, Any]) -> dict[str, Any]:
    """With the values as JSON, and the keys of its row together."""
    return {**{name: value for name, value in letter.items() if name != "payload"}, "row": json.loads(letter["payload"] or "null")}


def _list_in_words(total: int, groups: Sequence[dict[str, Any]], letters: Sequence[dict[str, Any]]) -> str:
    if not letters:
        return "no dead letters"
    columns = ("id", "stage", "reason", "origin", "row", "status", "detail")
    shown = [{**one, "row": _keys(one)} for one in letters]
    lines = [table(("stage", "reason", "letters"), [tuple(group.values()) for group in groups]), ""]
    lines += [f"the newest {len(letters):,} of {total:,}:"] if total > len(letters) else []
    return "\n".join(
        [
            *lines,
            table(columns, [[one[name] for name in columns] for one in shown], keys=("id", "row"), fit=True),
        ]
    )


def _keys(letter: Mapping[str, Any]) -> int | str | None:
    """Of its row, or of the first and last one of a range."""
    low: int | None = letter["row_low"]
    return low if letter["row_high"] is None else f"{low} to {letter['row_high']}"
