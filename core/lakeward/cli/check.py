"""`lakeward check`: find every mistake in a pipeline file, read no rows."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from lakeward.cli.answer import answer
from lakeward.cli.logs import start_logging
from lakeward.cli.places import json_option, pipeline_file, select_option, set_option
from lakeward.errors import ConfigError

EPILOG = """\b
Examples:
  lakeward check pipeline.yaml
  lakeward check pipeline.yaml --json        problems as JSON, for editors and CI"""


@click.command(short_help="Find every mistake in a pipeline file.", epilog=EPILOG)
@pipeline_file
@select_option
@set_option
@json_option
def command(file: Path, select: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check the pipeline in FILE: the file, its plugins, their options, the source's table and columns, the sinks' places."""
    start_logging("text", "warning")
    from lakeward.cli.probing import probe
    from lakeward.config import load
    from lakeward.planning import plan
    from lakeward.plugins import load_plugins

    try:
        config = load(file, overrides)
        plugins = load_plugins(allow=config.plugins.allow, disable=config.plugins.disable)
        if config.select or select:
            config.graph(select)
        for graph in [select] if select else list(config.graphs):
            with closing(plan(config, plugins, graph)) as pipeline:
                probe(pipeline)
    except ConfigError as error:
        if not as_json:
            raise
        problems = [
            {"file": one.place.file, "line": one.place.line, "column": one.place.column, "path": one.path, "message": one.message}
            for one in error.problems
        ]
        answer({"ok": False, "problems": problems}, as_json, str)
        raise click.exceptions.Exit(2) from None
    answer({"ok": True, "problems": []}, as_json, lambda: f"{file}: no mistakes found")
