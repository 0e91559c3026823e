"""`lakeward backfill`: read a range of rows again, beside the live run."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lakeward.cli.answer import answer
from lakeward.cli.logs import log_options, start_logging
from lakeward.cli.places import config_state_dir, json_option, pipeline_file, select_option, set_option, state_dir_option
from lakeward.cli.rereading import asked_by, by_option, origin_option, reason_option, reread, with_reason
from lakeward.cli.running import carry_out, listening, planned, show_progress
from lakeward.errors import LakewardError

if TYPE_CHECKING:
    from lakeward.pipeline import Pipeline
    from lakeward.state import State

EPILOG = """\b
Examples:
  lakeward backfill pipeline.yaml --from 41001 --to 52000 --reason "table was restored to Monday"
  lakeward backfill pipeline.yaml --from 1 --to 900 --sinks readings --reason "new bucket" --by ada
The same command again goes on after a crash; when all has arrived it does nothing, unless with --again."""
DONE = "backfill_done"
log = logging.getLogger("lakeward.run")


@click.command(short_help="Read a range of rows again, beside the live run.", epilog=EPILOG)
@pipeline_file
@click.option("--from", "first", type=int, required=True, metavar="ID", help="Key of the first row.")
@click.option("--to", "last", type=int, required=True, metavar="ID", help="Key of the last row.")
@reason_option
@origin_option
@click.option("--sinks", metavar="NAMES", help="Which sinks take part, with commas [default: all that no window or alert feeds].")
@click.option("--again", is_flag=True, help="Do anew what was done already: every row arrives once more.")
@by_option
@select_option
@state_dir_option
@set_option
@log_options
@json_option
def command(
    file: Path, first: int, last: int, reason: str, origin: str, sinks: str | None, again: bool, who: str | None, select: str | None,
    state_dir: Path | None, overrides: tuple[str, ...], log_format: str, log_level: str, as_json: bool,
) -> None:  # fmt: skip
    """Read the rows of FILE's source with keys from --from to --to again and deliver them, whether a run is alive or not.

    They arrive once more, under another epoch of their keys. Its state is a folder of its own in the state directory.
    Windows and alerts would be made of these rows alone, so the sinks that they feed take part only when --sinks names them.
    """
    if first > last:
        raise click.UsageError(f"--from {first} is after --to {last}")
    reason, who = with_reason(reason), asked_by(who)
    start_logging(log_format, log_level)
    with listening() as bell:
        from lakeward.config import UNNAMED, load
        from lakeward.run import Run

        config = load(file, overrides)
        main = config_state_dir(config, state_dir)
        names = sorted({name.strip() for name in sinks.split(",")} - {""}) if sinks else None
        with planned(config, select) as (whole, plugins):
            pipeline = only(whole, names)
            graph = "" if pipeline.graph == UNNAMED else pipeline.graph
            where = main / _folder(first, last, [*filter(None, [graph]), origin, "+".join(names or ())])
            if _is_done(where, again):
                found = {"state_dir": str(where), "done": True}
                answer(found, as_json, lambda: f"{where}: was done already; --again does it anew, and every row arrives once more")
                return
            show_progress(plugins, log_format)
            about = f"rows {first} to {last} {f'of {origin} ' if origin else ''}for {', '.join(pipeline.sinks)}, asked by {who}: {reason}"

            def begin(state: State) -> Run:
                state.claim(config.name)
                if state.checkpoint() is None:
                    _first_record(state, pipeline, main, about, first, last, origin)
                return Run(pipeline, plugins, state, bell, once=True, finish=True)

            code = carry_out(where, begin, True, bell, as_json, lambda state: _mark_done(state, f"{first} to {last}"))
        sys.exit(code)


def only(pipeline: Pipeline, names: Sequence[str] | None) -> Pipeline:
    """With these sinks alone, and the transforms that they need; by default the sinks that no transform with a memory feeds."""
    import attrs

    from lakeward.components import Stateful

    steps = {step.name: step for step in pipeline.steps}
    needs: dict[str, set[str]] = {}
    for name, links in pipeline.links.items():
        found, reached = set[str](), [link[0] for link in links]
        while reached:
            node = reached.pop()
            if node in steps and node not in found:
                found.add(node)
                reached += [link[0] for link in steps[node].inputs]
        needs[name] = found
    if unknown := sorted(set(names or ()) - needs.keys()):
        raise click.UsageError(f"--sinks: no sink named {', '.join(unknown)}; there are {', '.join(needs)}")
    remembering = {name for name, found in needs.items() if any(isinstance(steps[node].transform, Stateful) for node in found)}
    taken = [name for name in needs if (name in names if names else name not in remembering)]
    if not taken:
        raise click.UsageError("windows or alerts feed every sink, and would be made of these rows alone; name the sinks with --sinks")
    if left := [name for name in needs if name not in taken]:
        log.info("not part of this backfill: %s", ", ".join(left))
    return attrs.evolve(
        pipeline,
        steps=[step for step in pipeline.steps if any(step.name in needs[name] for name in taken)],
        sinks={name: pipeline.sinks[name] for name in taken},
        links={name: pipeline.links[name] for name in taken},
    )


def _folder(first: int, last: int, besides: Sequence[str]) -> str:
    """A name that no other range, graph, input or choice of sinks has."""
    name = f"backfill-{first}-{last}"
    if any(besides):
        readable = re.sub(r"[^A-Za-z0-9.+-]+", "_", "-".join(filter(None, besides)))[-80:]
        name += f"-{readable}-{hashlib.sha256(repr(besides).encode()).hexdigest()[:6]}"
    return name


def _is_done(where: Path, again: bool) -> bool:
    """True when nothing is to be done. With `again` what was done is forgotten, and a new life begins."""
    from lakeward.state import State

    with State.look(where) as seen:
        done = seen is not None and any(event["kind"] == DONE for event in seen.events())
    if again and done:
        with State.hold(where):
            shutil.rmtree(where)
    elif again and seen is not None:
        log.warning("--again: it has not ended yet, so it goes on")
    return done and not again


def _first_record(state: State, pipeline: Pipeline, main: Path, about: str, first: int, last: int, origin: str) -> None:
    """Tell the main state, which gives the epoch, and note where to begin."""
    from lakeward.components import Event
    from lakeward.recording import Recording
    from lakeward.state import State

    event = Event("backfill", about)
    with State.beside(main) as beside:
        beside.claim(pipeline.config.name)
        epoch = beside.new_epoch()
        position = reread(pipeline.source, first, last, epoch, origin)
        beside.tell(event, origin)
    state.record(Recording(1, epoch, position, {}, [], [], {}, [event], origin))


def _mark_done(state: State, keys: str) -> None:
    """Say so in the state. Raises LakewardError when there was nothing to do: the range is rather a wrong one."""
    from lakeward.components import Event

    rows = state.totals().get("rows", {}).get("read", 0)
    if not rows:
        raise LakewardError(f"the source has no row with a key from {keys}, so nothing was delivered; look at --from and --to")
    state.tell(Event(DONE, f"every row has arrived, {rows:,} of them"))
    state.room.release()
