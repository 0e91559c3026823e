"""`lakeward run`: move rows."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lakeward.cli.answer import answer
from lakeward.cli.logs import log_options, start_logging
from lakeward.cli.places import config_state_dir, json_option, pipeline_file, select_option, set_option, state_dir_option

if TYPE_CHECKING:  # `lakeward run --help` must not pay for pyarrow
    from lakeward.components import Position
    from lakeward.pipeline import Outcome, Pipeline
    from lakeward.plugins import Plugins
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
    from lakeward.config import load
    from lakeward.pipeline import plan
    from lakeward.plugins import load_plugins

    config = load(file, overrides)
    plugins = load_plugins(allow=config.plugins.allow, disable=config.plugins.disable)
    pipeline = plan(config, plugins, select)
    try:
        where = config_state_dir(config, state_dir)
        if dry_run:
            _rehearse(pipeline, where, as_json)
            return
        if sys.stderr.isatty() and log_format == "text":
            from lakeward.cli.progress import Progress

            plugins.manager.register(Progress())
        gc.freeze()
        gc.enable()
        code = _run(pipeline, plugins, where, once, finish, as_json)
    finally:
        pipeline.close()
    sys.exit(code)


def _run(pipeline: Pipeline, plugins: Plugins, where: Path, once: bool, finish: bool, as_json: bool) -> int:
    from lakeward.cli.report import in_words, report
    from lakeward.run import Run
    from lakeward.state import State

    with State.hold(where) as state:
        run = Run(pipeline, plugins, state, once=once, finish=finish)
        result = run.execute()
        found = report(state)
        seconds = (result.finished - run.info.started).total_seconds()
        this_run = {
            "id": run.info.id, "status": result.status, "seconds": round(seconds, 3), "error": result.error,
            "read": result.read, "filtered": result.filtered, "dead": result.dead, "delivered": dict(result.delivered),
        }  # fmt: skip
        headline = f"{run.info.pipeline}: {result.status} in {seconds:.1f} s, {result.read:,} rows read in this run. In all:"
        answer({"pipeline": run.info.pipeline, "run": this_run, **found}, as_json, lambda: f"{headline}\n{in_words(found)}")
        if result.error:
            click.echo(f"lakeward: {result.error}", err=True)
        code = {"done": 0, "failed": 1, "stopped": 128 + run.stopped_by}[result.status]
        if run.abandoned:
            sys.stdout.flush()
            os._exit(code)  # still holding the state: the next run may begin when nothing of this one goes on
    return code


def _rehearse(pipeline: Pipeline, where: Path, as_json: bool) -> None:
    from lakeward.cli.probing import probe
    from lakeward.run import restore
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
    found = {"read": fates.read, "delivered": fates.delivered, "filtered": dict(outcome.filtered), "dead": fates.dead, "sinks": sinks}
    identity = f"{fates.read:,} rows read = {fates.delivered:,} to deliver + {fates.filtered:,} filtered + {fates.dead:,} dead letters"
    lines = [f"dry run: {identity}"] + [f"  {name}: {sink['rows']:,} rows  {sink['would']}" for name, sink in sinks.items()]
    answer(found, as_json, lambda: "\n".join(lines))


def _first_batch(pipeline: Pipeline, position: Position | None) -> tuple[Outcome, Fates]:
    """Read one batch and transform it; nothing is written or remembered."""
    from lakeward.pipeline import Outcome
    from lakeward.reconcile import NO_ROWS, fates

    for batch in pipeline.source.read(position, pipeline.config.batch.rows):
        outcome = pipeline.push(batch.rows) if batch.rows.num_rows else Outcome()
        return outcome, fates(batch.rows, batch.rejected.num_rows if batch.rejected is not None else 0, outcome)
    return Outcome(), NO_ROWS
