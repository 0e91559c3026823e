"""`lakeward explain`: show what a pipeline would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakeward.cli.answer import answer
from lakeward.cli.logs import start_logging
from lakeward.cli.places import json_option, pipeline_file, select_option, set_option

if TYPE_CHECKING:  # `lakeward explain --help` must not pay for pyarrow
    from lakeward.pipeline import Pipeline

EPILOG = """\b
Examples:
  lakeward explain pipeline.yaml             the graph, the query, the columns, and what each transform changes
  lakeward explain pipeline.yaml --json"""


@click.command(short_help="Show the graph, the query and the columns.", epilog=EPILOG)
@pipeline_file
@select_option
@set_option
@json_option
def command(file: Path, select: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Explain the pipeline in FILE: how its parts are joined, how it reads, which columns go where."""
    start_logging("text", "warning")
    from lakeward.config import load
    from lakeward.planning import plan
    from lakeward.plugins import load_plugins

    config = load(file, overrides)
    pipeline = plan(config, load_plugins(allow=config.plugins.allow, disable=config.plugins.disable), select)
    try:
        found = _explanation(pipeline)
    finally:
        pipeline.close()
    answer(found, as_json, lambda: _in_words(found))


def _explanation(pipeline: Pipeline) -> dict[str, Any]:
    from lakeward.components import Explaining

    config = pipeline.config
    graph = config.graphs[pipeline.graph]

    def ports_of(name: str) -> dict[str, dict[str, str]]:
        return {
            port: {column.name: str(column.type) for column in schema} for (node, port), schema in pipeline.schemas.items() if node == name
        }

    return {
        "pipeline": config.name,
        "graph": pipeline.graph,
        "source": {
            "use": config.source.use,
            "reads": pipeline.source.explain() if isinstance(pipeline.source, Explaining) else "",
            "columns": ports_of("source")["main"],
        },
        "transforms": {
            step.name: {
                "use": graph.transforms[step.name].use,
                "from": [".".join(link) for link in step.inputs],
                "ports": ports_of(step.name),
            }
            for step in pipeline.steps
        },
        "sinks": {
            name: {"use": graph.sinks[name].use, "from": [".".join(link) for link in links]} for name, links in pipeline.links.items()
        },
    }


def _in_words(found: dict[str, Any]) -> str:
    source = found["source"]
    known = {"source.main": source["columns"]}
    lines = [f"pipeline {found['pipeline']}", "", f"source ({source['use']})"]
    lines += [f"    {line}" for line in source["reads"].splitlines()]
    lines += [f"    columns: {_columns(source['columns'])}"]
    for name, step in found["transforms"].items():
        lines += ["", f"{name} ({step['use']}) takes {', '.join(step['from'])}"]
        ports = {f"{name}.{port}": schema for port, schema in step["ports"].items()}
        changes = {port: _change(known[step["from"][0]], schema) for port, schema in ports.items()}
        for change in dict.fromkeys(changes.values()):
            lines.append(f"    {', '.join(port for port in ports if changes[port] == change)}: {change}")
        known |= ports
    lines.append("")
    lines += [f"{name} ({sink['use']}) takes {', '.join(sink['from'])}" for name, sink in found["sinks"].items()]
    return "\n".join(lines)


def _columns(schema: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in schema.items())


def _change(before: dict[str, str], after: dict[str, str]) -> str:
    """What a transform does to the columns; all of them when it keeps few, as those are other rows."""
    kept = [name for name in after if name in before]
    if 2 * len(kept) < len(before):
        return _columns(after)
    changes = {
        "adds": _columns({name: kind for name, kind in after.items() if name not in before}),
        "drops": ", ".join(name for name in before if name not in after),
        "retypes": ", ".join(f"{name} {before[name]} to {after[name]}" for name in kept if before[name] != after[name]),
    }
    return "; ".join(f"{verb} {columns}" for verb, columns in changes.items() if columns) or "the same columns"
