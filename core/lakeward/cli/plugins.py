"""`lakeward plugins`: what is installed, and what each component takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lakeward.cli.answer import answer
from lakeward.cli.places import json_option
from lakeward.cli.table import table
from lakeward.errors import LakewardError

if TYPE_CHECKING:
    from lakeward.components import Component
    from lakeward.plugins import Plugin, Plugins


@click.group(short_help="List plugins and their options.")
def command() -> None:
    """List plugins, show the options of a component."""


@command.command("list", epilog="\b\nExamples:\n  lakeward plugins list\n  lakeward plugins list --json")
@json_option
def list_(as_json: bool) -> None:
    """List all sources, transforms and sinks, and plugins that are not ready."""
    from lakeward.plugins import load_plugins

    plugins = load_plugins()
    lines = [
        {"name": component.name, "kind": component.kind, "plugin": plugin.name, "distribution": plugin.origin, "summary": component.summary}
        for plugin, component in plugins.components()
    ]
    lines += [
        {"name": plugin.name, "kind": f"[{plugin.status}]", "plugin": plugin.name, "distribution": plugin.origin, "summary": plugin.message}
        for plugin in plugins.found
        if plugin.status != "ready"
    ]
    headers = ("name", "kind", "plugin", "distribution", "summary")
    answer(lines, as_json, lambda: table(headers, [tuple(line.values()) for line in lines]))


@command.command(epilog="\b\nExamples:\n  lakeward plugins show sqlite\n  lakeward plugins show sink/parquet")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what the component NAME (or KIND/NAME) does, and its options."""
    from lakeward.plugins import load_plugins

    plugins = load_plugins()
    kind, _, bare = name.rpartition("/")
    matches = [pair for pair in plugins.components() if pair[1].name == bare and kind in ("", pair[1].kind)]
    if not matches:
        known = sorted({component.name for _, component in plugins.components()})
        raise LakewardError(f"no component named {name!r}; there are {', '.join(known)}")
    found = [_described(plugins, plugin, component) for plugin, component in matches]
    answer(found, as_json, lambda: "\n\n".join(map(_in_words, found)))


def _described(plugins: Plugins, plugin: Plugin, component: Component) -> dict[str, Any]:
    import attrs

    from lakeward.cli.described import describe, parts

    cls = plugins.load(plugin, component)
    return {
        "name": component.name, "kind": component.kind, "distribution": plugin.origin, "summary": component.summary,
        "ports": list(getattr(cls, "ports", ())), "block": getattr(cls, "block", ""),
        "options": [attrs.asdict(one) for one in describe(cls)],
        "parts": {path: [attrs.asdict(one) for one in describe(part)] for path, part in parts(cls)},
    }  # fmt: skip


def _in_words(found: dict[str, Any]) -> str:
    lines = [f"{found['name']} ({found['kind']}, {found['distribution']}): {found['summary']}"]
    if found["ports"] and found["ports"] != ["main"]:
        lines.append(f"ports: {', '.join(found['ports'])}")
    if found["block"]:
        lines.append(f"options are also accepted inside a mapping `{found['block']}:`")
    for path, options in {"": found["options"], **found["parts"]}.items():
        rows = [(one["name"], one["type"], "required" if one["required"] else one["default"], one["unit"], one["help"]) for one in options]
        lines += ["", table((path or "option", "type", "default", "unit", "what it does"), rows)]
    return "\n".join(lines)
