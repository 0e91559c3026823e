"""`lakeward position`: where a pipeline goes on in its source; look at it, or set it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakeward.cli.answer import answer
from lakeward.cli.in_order import InOrder
from lakeward.cli.places import config_state_dir, json_option, pipeline_file, set_option, state_dir_option
from lakeward.cli.rereading import asked_by, by_option, entries, in_words, origin_option, reason_option, reread, shortened, with_reason
from lakeward.cli.table import table
from lakeward.errors import Retry, StateInUse

if TYPE_CHECKING:
    from lakeward.components import Position, Source

EPILOG = """\b
Examples:
  lakeward position show pipeline.yaml
  lakeward position set pipeline.yaml --to 41000 --reason "sensor recalibrated, rows after 41000 wanted again" """
SHOW_EPILOG = """\b
Examples:
  lakeward position show pipeline.yaml
  lakeward position show pipeline.yaml --json       all of it, as `set --json-position` takes it"""
SET_EPILOG = """\b
Examples:
  lakeward position set pipeline.yaml --to 41000 --reason "rows after 41000 wanted again"
  lakeward position set pipeline.yaml --to 0 --origin north/sensor.db --reason "one file from its start"
  lakeward position set pipeline.yaml --json-position '{"id": 7}' --reason "by hand" --by ada"""


@click.group(cls=InOrder, short_help="Show or set where the pipeline goes on.", epilog=EPILOG)
def command() -> None:
    """Show or set where a pipeline goes on in its source."""


@command.command(short_help="Show where the pipeline goes on.", epilog=SHOW_EPILOG)
@pipeline_file
@state_dir_option
@set_option
@json_option
def show(file: Path, state_dir: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show where the pipeline in FILE goes on; also while it runs."""
    from lakeward.config import load
    from lakeward.state import State

    where = config_state_dir(load(file, overrides), state_dir)
    with State.look(where) as state:
        checkpoint = state.checkpoint() if state else None
    position = checkpoint.position if checkpoint else None
    found = {"state_dir": str(where), "position": position, "recorded": checkpoint.at if checkpoint else None}
    answer(found, as_json, lambda: _table(position) if position else "at the start: nothing was read yet")


@command.command("set", short_help="Set where the pipeline goes on.", epilog=SET_EPILOG)
@pipeline_file
@click.option("--to", type=int, metavar="ID", help="Go on after the row with this key.")
@click.option("--json-position", metavar="JSON", help="Go on at this position, which only the source understands.")
@reason_option
@origin_option
@by_option
@state_dir_option
@set_option
@json_option
def set_(
    file: Path, to: int | None, json_position: str | None, reason: str, origin: str, who: str | None, state_dir: Path | None,
    overrides: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Set where the pipeline in FILE goes on; it must not run meanwhile.

    Rows that are read again arrive again in every sink, under another epoch of their keys, and count again in windows that are still
    open. Rows that are jumped over are not read.
    """
    if (to is None) == (json_position is None):
        raise click.UsageError("give either --to ID or --json-position JSON")
    reason, who = with_reason(reason), asked_by(who)
    by_hand = _parsed(json_position) if json_position is not None else None
    from lakeward.cli.running import planned
    from lakeward.components import Event
    from lakeward.config import load
    from lakeward.recording import Recording
    from lakeward.state import State
    from lakeward.statefile import Checkpoint

    config = load(file, overrides)
    with planned(config, config.select or next(iter(config.graphs))) as (pipeline, _):
        if by_hand is not None:
            _require_understood(pipeline.source, by_hand)
        try:
            with State.hold(config_state_dir(config, state_dir)) as state:
                state.claim(config.name)
                recorded = state.checkpoint() or Checkpoint()
                before, epoch = recorded.position, recorded.epoch
                if to is not None:
                    epoch = state.new_epoch()
                    by_hand = _moved(pipeline.source, before, to, epoch, origin)
                moved = f"from {in_words(_part(before, origin))} to {in_words(_part(by_hand, origin))}"
                told = f"{who} set the position: {reason}; {moved}"
                event = Event("position_set", told)
                state.record(Recording(recorded.sequence + 1, epoch, by_hand, {}, [], [], {}, [event], origin))
        except StateInUse as error:
            raise _Running(str(error)) from error
    effect = _effect(before, to, origin) if to is not None else "what this means for rows, only the source knows"
    found = {"before": before, "position": by_hand, "by": who, "reason": reason, "effect": effect}
    answer(found, as_json, lambda: f"{moved}\n{effect}")


class _Running(StateInUse):
    def __init__(self, message: str) -> None:
        Exception.__init__(self, f"{message.partition('; ')[0]}; stop the run first")


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--json-position is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.UsageError("--json-position must be a JSON object, such as '{\"id\": 7}'")
    return found


def _require_understood(source: Source, position: Position) -> None:
    """The source takes it, which is known before the run would fail. Raises LakewardError."""
    with suppress(Retry):  # it cannot be read now, so it cannot say
        next(iter(source.read(position or None, 1)), None)


def _moved(source: Source, before: Position | None, to: int, epoch: int, origin: str) -> dict[str, Any]:
    """The position after a row; that of other inputs stays as it is."""
    position = dict(reread(source, to + 1, None, epoch, origin))
    several = origin and set(position) == {origin}
    return {**(before or {}), **position} if several else position


def _part(position: Position | None, origin: str) -> Position | None:
    """What is about this input; of a thousand others nobody wants to read."""
    return {origin: position[origin]} if position and origin in position else position


def _effect(before: Position | None, to: int, origin: str) -> str:
    """What it means for rows, as far as the keys tell."""
    here = entries(before or {})
    old = here.get(origin, here.get("", {})).get("id")
    if not isinstance(old, int):
        return f"rows after {to:,} will be read, again if they were read before"
    if to < old:
        return f"rows {to + 1:,} to {old:,} will be read again (at most {old - to:,})"
    return f"rows {old + 1:,} to {to:,} will not be read (at most {to - old:,})" if to > old else "no row is read again or left out"


def _table(position: Position) -> str:
    rows = {name: shortened(entry) for name, entry in entries(position).items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = [[name or "the only one", *(row.get(column) for column in columns)] for name, row in rows.items()]
    return table(["input", *columns], cells, keys=columns)
