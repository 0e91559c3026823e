"""`lakeward status`: what was read, delivered, refused."""

from __future__ import annotations

from pathlib import Path

import click

from lakeward.cli.answer import answer
from lakeward.cli.places import found_states, json_option, state_dir_of, state_dir_option

EPILOG = """\b
Examples:
  lakeward status pipeline.yaml
  lakeward status                            every pipeline that has run in this folder
  lakeward status pipeline.yaml --json"""


@click.command(short_help="Show what was read, delivered, refused.", epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path), required=False, metavar="[FILE]")
@state_dir_option
@json_option
def command(file: Path | None, state_dir: Path | None, as_json: bool) -> None:
    """Show what the pipeline in FILE has done so far; also while it runs. Without FILE, --json gives a list."""
    from lakeward.cli.report import in_words, report
    from lakeward.state import State

    directories = [state_dir] if state_dir else [state_dir_of(file, None)] if file else found_states(Path())
    reports = []
    for directory in directories:
        with State.look(directory) as state:
            reports.append({"state_dir": str(directory), "batches": 0} if state is None else report(state))
    answer(
        reports[0] if file or state_dir else reports,
        as_json,
        lambda: "\n".join(f"{found['state_dir']}: {in_words(found) if 'rows' in found else 'has not run yet'}" for found in reports),
    )
