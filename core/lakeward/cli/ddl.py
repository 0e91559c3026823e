"""`lakeward ddl`: print the statements that make the tables which sinks write into."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import click

from lakeward.cli.answer import answer
from lakeward.cli.logs import start_logging
from lakeward.cli.places import json_option, pipeline_file, select_option, set_option
from lakeward.errors import ConfigError, LakewardError, OptionError, Refused

if TYPE_CHECKING:  # `lakeward ddl --help` must not pay for pyarrow
    import pyarrow as pa

    from lakeward.pipeline import Pipeline

EPILOG = """\b
Examples:
  lakeward ddl pipeline.yaml                 for every sink that writes into a table of a database
  lakeward ddl pipeline.yaml readings        for one of them
  lakeward ddl pipeline.yaml --json          by the name of the sink"""


@runtime_checkable
class Defining(Protocol):
    """What a sink has as well when its table is made by a statement, which a person may want to run first."""

    def ddl(self, schema: pa.Schema) -> str:
        """The statement that makes the table for rows of this schema, without a semicolon. Raises `OptionError` or `Refused`."""


@click.command(short_help="Print CREATE TABLE for the sinks.", epilog=EPILOG)
@pipeline_file
@click.argument("sink", required=False)
@select_option
@set_option
@json_option
def command(file: Path, sink: str | None, select: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the statements that make the tables of the sinks in FILE, or of one SINK. Nothing is asked of a database, nothing changed."""
    start_logging("text", "warning")
    from lakeward.config import load
    from lakeward.planning import plan
    from lakeward.plugins import load_plugins

    config = load(file, overrides)
    plugins = load_plugins(allow=config.plugins.allow, disable=config.plugins.disable)
    with closing(plan(config, plugins, select)) as pipeline:
        found = _statements(pipeline, sink)
    answer(found, as_json, lambda: "\n\n".join(f"{statement};" for statement in found.values()))


def _statements(pipeline: Pipeline, wanted: str | None) -> dict[str, str]:
    """By the name of the sink."""
    if wanted is not None and wanted not in pipeline.sinks:
        raise LakewardError(f"no sink {wanted!r}; sinks are {', '.join(pipeline.sinks)}")
    found, problems = {}, []
    for name, sink in pipeline.sinks.items():
        path = pipeline.config.graphs[pipeline.graph].sinks[name].path
        if isinstance(sink, Defining) and wanted in (None, name):
            try:
                found[name] = sink.ddl(pipeline.schemas[pipeline.links[name][0]])
            except OptionError as error:
                problems.append(pipeline.config.problem((*path, error.option), error.message))
            except Refused as error:
                problems.append(pipeline.config.problem(path, str(error)))
    if problems:
        raise ConfigError(problems)
    if not found:
        raise LakewardError(f"{f'sink {wanted!r} writes' if wanted else 'the sinks write'} into no table that a statement makes")
    return found
