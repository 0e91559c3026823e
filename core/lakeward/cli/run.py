"""`lakeward run`: move rows."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lakeward.cli.answer import answer
from lakeward.cli.logs import log_options, start_logging
from lakeward.cli.places import config_state_dir, json_option, pipeline_file, select_option, set_option, state_dir_option
from lakeward.cli.running import carry_out, listening, planned_when_possible, show_progress

if TYPE_CHECKING:  # `lakeward run --help` must not pay for pyarrow
    from lakeward.components import Position
    from lakeward.pipeline import Outcome, Pipeline
    from lakeward.reconcile import Fates

EPILOG = """\b
Examples:
  lakeward run pipeline.yaml --once                     move what is there, deliver it, end
  lakeward run pipeline.yaml --once --finish            ... and close the windows that are still open
  lakeward run pipeline.yaml --set batch.rows=5000      override a value of the file
  lakeward run pipeline.yaml --dry-run                  read and transform one batch, write nothing"""


@click.command(short_help="Move rows from the source to the sinks.", epilog=EPILOG)
@pipeline_file
@click.option("--once", is_flag=True, help="End when the source has no more rows and all are delivered.")
@click.option("--finish", is_flag=True, help="With --once: no more rows will come; close open windows.")
@click.option("--dry-run", is_flag=True, help="Read and transform one batch; write and remember nothing.")
@select_option
@state_dir_option
@set_option
@log_options
@json_option
def command(
    file: Path, once: bool, finish: bool, dry_run: bool, select: str | None, state_dir: Path | None, overrides: tuple[str, ...],
    log_format: str, log_level: str, as_json: bool,
) -> None:  # fmt: skip
    """Run the pipeline in FILE: read, transform and deliver, until told to stop."""
    if finish and not once:
        raise click.UsageError("--finish ends the input, so it needs --once")
    start_logging(log_format, log_level)
    bytes(31 << 20)  # having freed so much once, glibc keeps as much at hand from batch to batch, and need not ask the system each time
    gc.disable()  # what is imported and planned stays to the end
    with listening() as bell:
        from lakeward.config import load

        config = load(file, overrides)
        where = config_state_dir(config, state_dir)
        with planned_when_possible(config, select, bell, patient=not (once or dry_run)) as (pipeline, plugins):
            gc.freeze()
            gc.enable()
            if dry_run:
                _rehearse(pipeline, where, as_json)
                return
            show_progress(plugins, log_format)
            from lakeward.run import Run

            code = carry_out(where, lambda state: Run(pipeline, plugins, state, bell, once=once, finish=finish), once, bell, as_json)
        sys.exit(code)


def _rehearse(pipeline: Pipeline, where: Path, as_json: bool) -> None:
    from lakeward.cli.probing import probe
    from lakeward.remembered import restore
    from lakeward.state import State

    would = probe(pipeline)
    position = None
    with State.look(where) as state:
        if state:
            restore(pipeline, state)
            checkpoint = state.checkpoint()
            position = checkpoint.position if checkpoint else None
    outcome, fates = _first_batch(pipeline, position)
    sinks = {}
    for name in pipeline.sinks:
        share = outcome.shares.get(name)
        sinks[name] = {"rows": share.num_rows if share is not None else 0, "would": would.get(name, "")}
    found = {"read": fates.read, "delivered": fates.delivered, "filtered": dict(outcome.filtered), "dead": fates.dead, "held": fates.held}
    found["sinks"] = sinks
    identity = f"{fates.read:,} rows read = {fates.delivered:,} to deliver + {fates.filtered:,} filtered + {fates.dead:,} dead letters"
    held = f" + {fates.held:,} held back until their next ones come" if fates.held else ""
    lines = [f"dry run: {identity}{held}"] + [f"  {name}: {sink['rows']:,} rows  {sink['would']}" for name, sink in sinks.items()]
    answer(found, as_json, lambda: "\n".join(lines))


def _first_batch(pipeline: Pipeline, position: Position | None) -> tuple[Outcome, Fates]:
    """Read one batch and transform it; nothing is written or remembered."""
    from lakeward.pipeline import Outcome
    from lakeward.reconcile import NO_ROWS, transformed

    for batch in pipeline.source.read(position, pipeline.config.batch.rows):
        return transformed(pipeline, batch)
    return Outcome(), NO_ROWS
