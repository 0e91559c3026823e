"""The new configuration, with its comments, as YAML."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

WIDTH = 120
PLAIN = re.compile(r"[A-Za-z/][\w./@-]*")
WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}
VARIABLE = re.compile(r"\$\{[A-Za-z_]\w*(?::-[^{}$]*)?\}|\$\{[a-z]+:[^{}$]+\}")
Options = dict[str, Any]


class Bare(str):
    """Text with a variable that stands for a number: quoted, it would be text."""

    __slots__ = ()


@frozen
class Note:
    """Something that a person must know or do."""

    key: str
    why: str
    todo: str


@frozen
class Node:
    """A transform or a sink."""

    name: str
    options: Options
    comment: str = ""


@frozen
class Graph:
    """From the source to the sinks."""

    name: str
    transforms: Sequence[Node]
    sinks: Sequence[Node]
    comment: str = ""


@define
class Draft:
    """A pipeline file."""

    system: str
    name: str
    source: Options
    graphs: Sequence[Graph]
    select: str = ""
    batch: Options = field(factory=dict)
    variables: Sequence[str] = ()
    """Secrets that must be in the environment."""
    notes: list[Note] = field(factory=list)


def written(draft: Draft, old: str, file: str) -> str:
    """The text of the file."""
    lines = [*_head(draft, old, file), f"name: {draft.name}", "", "source:", *_mapping(draft.source, 1), ""]
    if len(draft.graphs) == 1:
        lines += _graph(draft.graphs[0], 0)
    else:
        lines += [f"select: {draft.select}", "", "pipelines:"]
        for graph in draft.graphs:
            lines += [*_comment(graph.comment, 1), f"  {graph.name}:", *_graph(graph, 2)]
    if draft.batch:
        lines += ["batch:", *_mapping(draft.batch, 1)]
    return "\n".join(lines).rstrip() + "\n"


def _head(draft: Draft, old: str, file: str) -> Iterator[str]:
    yield from _comment(f"Made by `lakeward migrate` from {old}. Relative paths are relative to this file.", 0)
    if draft.variables:
        yield from _comment(f"These must be set in the environment: {', '.join(draft.variables)}.", 0)
    yield "#"
    yield f"#   lakeward check {file}"
    yield f"#   lakeward doctor {file}"
    yield f"#   lakeward run {file}"
    if draft.notes:
        yield "#"
        yield from _comment("What to look at:", 0)
        for note in draft.notes:
            yield from _comment(f"- {note.key}: {note.why}. {note.todo}", 0, "  ")


def _graph(graph: Graph, depth: int) -> Iterator[str]:
    for title, nodes in (("transforms", graph.transforms), ("sinks", graph.sinks)):
        if nodes:
            yield f"{'  ' * depth}{title}:"
            for node in nodes:
                yield from _comment(node.comment, depth + 1)
                yield f"{'  ' * (depth + 1)}{node.name}:"
                yield from _mapping(node.options, depth + 2)
            yield ""


def _comment(text: str, depth: int, hanging: str = "") -> list[str]:
    lead = f"{'  ' * depth}# "
    return textwrap.wrap(text, WIDTH, initial_indent=lead, subsequent_indent=lead + hanging, break_long_words=False, break_on_hyphens=False)


def _mapping(options: Mapping[str, Any], depth: int) -> Iterator[str]:
    """In blocks; what fits into one line and is deeper is in flow style."""
    for key, value in options.items():
        line = f"{'  ' * depth}{_scalar(str(key))}:"
        flow = _flow(value)
        if isinstance(value, Mapping) and len(line) + len(flow) > WIDTH:
            yield line
            yield from _mapping(value, depth + 1)
        else:
            yield f"{line} {flow}"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(str(key))}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """Text is quoted where it could be anything else; ${ that is no variable stays text."""
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    text = str(value)
    if isinstance(value, Bare):
        return text
    if PLAIN.fullmatch(text) and text.lower() not in WORDS:
        return text
    kept, last = "", 0
    for match in VARIABLE.finditer(text):
        kept += text[last : match.start()].replace("${", "$${") + match[0]
        last = match.end()
    return json.dumps(kept + text[last:].replace("${", "$${"), ensure_ascii=False)
