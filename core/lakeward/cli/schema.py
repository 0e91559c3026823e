"""`lakeward schema`: what a pipeline's YAML file may say, as JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lakeward.errors import LakewardError

if TYPE_CHECKING:
    from lakeward.cli.json_types import Schema, Types
    from lakeward.components import Component
    from lakeward.plugins import Plugin, Plugins

DRAFT = "https://json-schema.org/draft/2020-12/schema"
EPILOG = """\b
Examples:
  lakeward schema > lakeward.schema.json                    for your editor
  lakeward schema --component transform/emergency           of one component

\b
In the first line of a pipeline's file:
  # yaml-language-server: $schema=lakeward.schema.json"""


@click.command(short_help="JSON Schema of the pipeline file, for editors.", epilog=EPILOG)
@click.option("--component", metavar="NAME", help="Only of this component: NAME, or KIND/NAME.")
def command(component: str | None) -> None:
    """Print a JSON Schema (draft 2020-12) of the pipeline file, with the options of all components that are installed."""
    import json

    from lakeward.plugins import load_plugins

    plugins = load_plugins()
    click.echo(json.dumps(of_component(plugins, component) if component else of_file(plugins), indent=2, ensure_ascii=False))


def of_component(plugins: Plugins, wanted: str) -> Schema:
    """The schema of one node. Raises LakewardError."""
    from lakeward.cli.json_types import Types

    kind, _, name = wanted.rpartition("/")
    found = [pair for pair in plugins.components() if pair[1].name == name and kind in ("", pair[1].kind)]
    if len(found) != 1:
        known = ", ".join(f"{component.kind}/{component.name}" for _, component in found or plugins.components())
        raise LakewardError(f"{'several components are' if found else 'no component is'} named {wanted!r}; there are {known}")
    types = Types()
    return _document(_node(plugins, *found[0], types), types)


def of_file(plugins: Plugins) -> Schema:
    """The schema of a whole file."""
    from lakeward.cli.json_types import VARIABLE, Types
    from lakeward.config import NAME, GraphFile, PipelineFile

    types = Types()
    named: Schema = {"pattern": f"^{NAME.pattern}$", "not": {"const": "source"}}
    links: Schema = {"type": "object", "propertyNames": named}
    graph: dict[str, Schema] = {
        "transforms": links | {"additionalProperties": {"$ref": "#/$defs/transform"}},
        "sinks": links | {"additionalProperties": {"$ref": "#/$defs/sink"}, "minProperties": 1},
    }
    whole, part = types.options(PipelineFile), types.options(GraphFile)
    for name, more in graph.items():
        whole["properties"][name] = {"description": whole["properties"][name]["description"]} | more
        part["properties"][name] = {"description": part["properties"][name]["description"]} | more
    whole["properties"]["name"]["pattern"] = f"^{NAME.pattern}$|{VARIABLE}"
    whole["properties"]["source"] = {"$ref": "#/$defs/source"}
    whole["properties"]["pipelines"] |= {"type": "object", "propertyNames": named, "additionalProperties": {"$ref": "#/$defs/graph"}}
    types.definitions["graph"] = part | {"required": ["sinks"]}
    for kind in ("source", "transform", "sink"):
        types.definitions[kind] = _any_of(plugins, kind, types)
    alone = [{"required": [name]} for name in graph]
    whole["oneOf"] = [{"required": ["sinks"], "not": {"required": ["pipelines"]}}, {"required": ["pipelines"], "not": {"anyOf": alone}}]
    return {"title": "A lakeward pipeline"} | _document(whole, types)


def _document(schema: Schema, types: Types) -> Schema:
    return {"$schema": DRAFT} | schema | ({"$defs": dict(sorted(types.definitions.items()))} if types.definitions else {})


def _any_of(plugins: Plugins, kind: str, types: Types) -> Schema:
    """A node of a kind: `use` says which component it is, and so which options it has."""
    cases: list[Schema] = []
    names: list[Schema] = []
    for plugin, component in plugins.components():
        if component.kind != kind:
            continue
        key = f"{kind}.{plugin.name}.{component.name}"
        types.definitions[key] = _node(plugins, plugin, component, types)
        uses = types.definitions[key]["properties"]["use"]["enum"]
        names += [{"const": use, "description": component.summary} for use in uses]
        cases.append({"if": {"properties": {"use": {"enum": uses}}, "required": ["use"]}, "then": {"$ref": f"#/$defs/{key}"}})
    return {"type": "object", "required": ["use"], "properties": {"use": {"anyOf": names}}, "allOf": cases}


def _node(plugins: Plugins, plugin: Plugin, component: Component, types: Types) -> Schema:
    """A node with `use: NAME`: the keys of lakeward, and the options of the component, flat or in its block."""
    from lakeward.options import init_fields
    from lakeward.secrets import Secret

    alone = sum(other.name == component.name and other.kind == component.kind for _, other in plugins.components()) == 1
    uses = [*([component.name] if alone else []), f"{plugin.name}/{component.name}"]
    node: Schema = {"description": component.summary, "type": "object", "required": ["use"], "properties": {"use": {"enum": uses}}}
    if component.kind != "source":
        said = "Where its rows come from: `node`, `node.port`, or a list of them; left out, the transform above."
        node["properties"]["from"] = {"description": said, "type": ["string", "array"], "items": {"type": "string"}, "minItems": 1}
    try:
        cls = plugins.load(plugin, component)
    except LakewardError as error:  # an extra that is not installed: any option may be right
        return node | {"description": f"{component.summary} ({error})"}
    options = types.options(cls)
    for one in init_fields(cls):
        if one.type in (Secret, "Secret"):  # older configurations have it as a mapping, and so the planner takes it
            options["properties"][one.name] = _secret(options["properties"][one.name])
    block = getattr(cls, "block", "")
    node["properties"] |= options["properties"]
    node["additionalProperties"] = False
    if block:
        node["properties"][block] = _block(options["properties"], block, uses[0])
    if needed := options.get("required"):
        node["allOf"] = [_either(name, block) for name in needed]
    return node


def _secret(known: Schema) -> Schema:
    """`${scheme:ref}`, or `{secret: NAME}` for `${env:NAME}`."""
    name = {"secret": {"type": "string", "pattern": "^[A-Z_][A-Z0-9_]*$"}}
    old: Schema = {"type": "object", "properties": name, "required": ["secret"], "additionalProperties": False}
    text: Schema = {"type": known.pop("type"), "pattern": known.pop("pattern")}
    return known | {"anyOf": [text, old]}


def _block(known: Schema, block: str, use: str) -> Schema:
    """The mapping that some or all options may stand in."""
    from lakeward.cli.json_types import JSON, VARIABLE

    said = f"Options of {use} may stand in this mapping as well as beside `use`; each in one place."
    return {
        "description": said, "type": ["object", "string", "null"], "pattern": f"{JSON}|{VARIABLE}", "properties": known,
        "additionalProperties": False,
    }  # fmt: skip


def _either(name: str, block: str) -> Schema:
    """A required option stands beside `use`, or in the block, where it cannot be seen in a text."""
    beside: Schema = {"required": [name]}
    inside: Schema = {"required": [block], "properties": {block: {"anyOf": [{"type": "string"}, beside]}}}
    return {"anyOf": [beside, inside]} if block else beside
