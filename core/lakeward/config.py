"""What one YAML file says: names, nodes and links, before any plugin is asked.

Precedence: command line (`--set path.to.key=value`) > environment (`LAKEWARD__path__to__key`) > file > default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from lakeward.errors import ConfigError, Place, Problem
from lakeward.options import option
from lakeward.yamlfile.build import Mistakes, build, steps
from lakeward.yamlfile.document import Document, Route, dotted, parse, read_document

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
PREFIX = "LAKEWARD__"
UNNAMED = "main"  # the graph of a file without `pipelines`


@frozen
class Batching:
    """How much is read at once."""

    rows: int = option(100_000, help="Read until so many rows.", unit="rows", minimum=1, maximum=1_000_000)
    wait: timedelta = option(timedelta(seconds=5), help="When fewer rows are there, look again after so long.", minimum=0)


@frozen
class Spooling:
    """Room for rows that a sink has not taken yet."""

    max_mb: float = option(
        1024.0, help="When so much waits for delivery, or a fifth of the free disk, reading pauses: the source is the buffer.", unit="MB",
        minimum=1,
    )  # fmt: skip


@frozen
class Limits:
    """How many dead letters are still taken for bad rows; more are a wrong table or a wrong rule, and a person must look first."""

    max_ratio: float = option(0.05, help="The largest part of a batch that may become dead letters; 1 accepts all.", minimum=0, maximum=1)
    spare: int = option(100, help="So many of a batch may become dead letters whatever their part is.", unit="rows", minimum=0)
    max_mb: float = option(256.0, help="Room for all that are open; none is ever dropped, so more stop the run.", unit="MB", minimum=0)


@frozen
class PluginRules:
    """Which installed plugins may take part."""

    allow: list[str] | None = option(None, help="Plugins or distributions beside lakeward's own; left out, all installed.")
    disable: list[str] = option(factory=list, help="Names of plugins that are switched off.")


@frozen
class GraphFile:
    """The transforms and sinks of one graph."""

    transforms: dict[str, dict[str, Any]] = option(factory=dict, help="Name to transform, in the order of the data.")
    sinks: dict[str, dict[str, Any]] = option(factory=dict, help="Name to sink.")


@frozen(kw_only=True)
class PipelineFile(GraphFile):
    """The top level of a pipeline's YAML file."""

    name: str = option(help="Name of the pipeline: letters, digits, `-` and `_`.")
    source: dict[str, Any] = option(help="Where the rows come from.")
    batch: Batching = option(factory=Batching, help="How much is read at once.")
    spool: Spooling = option(factory=Spooling, help="Room for rows that wait for delivery.")
    dead_letters: Limits = option(factory=Limits, help="How many rows may be refused before a person must look.")
    plugins: PluginRules = option(factory=PluginRules, help="Which installed plugins may take part.")
    pipelines: dict[str, GraphFile] = option(
        factory=dict, help="Several named graphs instead of one; they share the source and its checkpoint."
    )
    select: str | None = option(None, help="Which of the named graphs is active.")


@frozen
class Node:
    """One configured component, still without its class."""

    name: str
    path: Route
    """Where its options are in the document."""
    use: str
    inputs: tuple[str, ...]
    """`node` or `node.port`; empty when left out."""
    options: Mapping[str, Any] = field(repr=False)


@frozen
class Graph:
    """Transforms and sinks by name, in the order of the file."""

    name: str
    transforms: Mapping[str, Node]
    sinks: Mapping[str, Node]


@frozen
class Config:
    """A whole configuration, well-formed."""

    file: Path
    name: str
    source: Node
    graphs: Mapping[str, Graph]
    select: str | None
    batch: Batching
    spool: Spooling
    dead_letters: Limits
    plugins: PluginRules
    document: Document = field(repr=False)

    @property
    def folder(self) -> Path:
        """What relative paths are relative to."""
        return self.file.parent

    def problem(self, path: Route, message: str, at_key: bool = False) -> Problem:
        """A mistake at a path, with the place where it was written."""
        return Problem(self.document.place(path, at_key), dotted(path), message)

    def graph(self, selected: str | None = None) -> Graph:
        """The active graph. Raises ConfigError when it is not known which."""
        name = selected or self.select or (next(iter(self.graphs)) if len(self.graphs) == 1 else None)
        names = ", ".join(self.graphs)
        if name is None:
            message = f"several graphs and no `select`; add `select:` with one of {names}"
            raise ConfigError([self.problem(("pipelines",), message, at_key=True)])
        if name not in self.graphs:
            raise ConfigError([self.problem(("select",), f"no graph named {name!r}; there are {names}")])
        return self.graphs[name]


def load(file: Path, overrides: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration in a file, with overrides. Raises ConfigError with all mistakes that can be seen without plugins."""
    document = read_document(file, environment)
    if not isinstance(document.data, dict):
        raise ConfigError([Problem(Place(str(file), 1, 1), "", "expected a mapping with name, source and sinks")])
    for text, origin in _overrides(overrides, environment):
        document = _override(document, text, origin, environment)
    try:
        content = build(PipelineFile, document.data, file.parent)
    except Mistakes as mistakes:
        problems = [Problem(document.place(one.path, one.at_key), dotted(one.path), one.message) for one in mistakes.mistakes]
        raise ConfigError(problems) from None
    return _Assembly(file.resolve(), document, content).config()


def _overrides(given: Sequence[str], environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """`path=value` texts with what to call their place; later ones win."""
    texts = []
    for variable, value in sorted(environment.items()):
        if variable.startswith(PREFIX):
            texts.append((f"{variable.removeprefix(PREFIX).replace('__', '.')}={value}", f"environment variable {variable}"))
    return texts + [(text, f"--set {text.partition('=')[0]}") for text in given]


def _override(document: Document, text: str, origin: str, environment: Mapping[str, str]) -> Document:
    place = Place(origin)
    key, equals, value = text.partition("=")
    path = list(steps(key))
    if not equals or not path:
        raise ConfigError([Problem(place, "", "expected path.to.key=value, such as batch.rows=1000")])
    written = parse(value, origin, environment, fixed=place)
    target: Any = document.data
    step: Any
    for index, step in enumerate(path):
        last = index == len(path) - 1
        if isinstance(target, list):
            number = int(step) if str(step).isdecimal() else len(target)
            if number >= len(target):
                raise ConfigError([Problem(place, dotted(tuple(path[: index + 1])), f"there are {len(target)} items, numbered from 0")])
            step = path[index] = number
        elif not isinstance(target, dict):
            raise ConfigError([Problem(place, dotted(tuple(path[:index])), "is a value, not a mapping; nothing can be set below it")])
        if last:
            target[step] = written.data
        else:
            target = target[step] if isinstance(target, list) else target.setdefault(step, {})
    route = tuple(path)
    places = {route[:length]: (place, place) for length in range(1, len(route))}  # of mappings made on the way
    places |= {known: at for known, at in document.places.items() if known[: len(route)] != route}
    places |= {(*route, *below): at for below, at in (written.places or {(): (place, place)}).items()}
    return evolve(document, places=places)


class _Assembly:
    """From the raw file to nodes and graphs, collecting mistakes."""

    def __init__(self, file: Path, document: Document, content: PipelineFile) -> None:
        self._file, self._document, self._content = file, document, content
        self._problems: list[Problem] = []

    def config(self) -> Config:
        content = self._content
        if not NAME.fullmatch(content.name):
            self._wrong(("name",), f"expected letters, digits, - and _ (at most 64), got {content.name!r}")
        source = self._node("source", ("source",), content.source, is_source=True)
        graphs = {UNNAMED: self._graph(UNNAMED, (), content)}
        if content.pipelines:
            if content.transforms or content.sinks:
                self._wrong(("pipelines",), "either `pipelines` or `transforms` and `sinks` at the top level, not both", at_key=True)
            graphs = {name: self._graph(name, ("pipelines", name), graph) for name, graph in content.pipelines.items()}
        if self._problems:
            raise ConfigError(self._problems)
        return Config(
            self._file, content.name, source, graphs, content.select, content.batch, content.spool, content.dead_letters, content.plugins,
            self._document,
        )  # fmt: skip

    def _graph(self, name: str, path: Route, graph: GraphFile) -> Graph:
        self._check_name(path, name)
        transforms = {key: self._node(key, (*path, "transforms", key), data) for key, data in graph.transforms.items()}
        sinks = {key: self._node(key, (*path, "sinks", key), data) for key, data in graph.sinks.items()}
        for key in sinks.keys() & transforms.keys():
            self._wrong((*path, "sinks", key), "a transform has this name already; choose another", at_key=True)
        if not sinks and (path or not self._content.pipelines):
            self._wrong((*path, "sinks"), "at least one sink is needed", at_key=True)
        return Graph(name, transforms, sinks)

    def _node(self, name: str, path: Route, data: dict[str, Any], is_source: bool = False) -> Node:
        if not is_source:
            self._check_name(path, name)
        options = dict(data)
        use = options.pop("use", None)
        if not isinstance(use, str):
            self._wrong((*path, "use"), "required: the name of a plugin's component, such as sqlite", at_key=True)
        inputs = options.pop("from", []) if not is_source else []
        inputs = [inputs] if isinstance(inputs, str) else inputs
        if not isinstance(inputs, list) or not all(isinstance(link, str) for link in inputs) or ("from" in data and not inputs):
            self._wrong((*path, "from"), "expected node, node.port, or a list of them")
            inputs = []
        return Node(name, path, str(use), tuple(inputs), options)

    def _check_name(self, path: Route, name: str) -> None:
        if name == "source" or not NAME.fullmatch(name):
            self._wrong(path, "expected a name of letters, digits, - and _ that is not `source`", at_key=True)

    def _wrong(self, path: Route, message: str, at_key: bool = False) -> None:
        self._problems.append(Problem(self._document.place(path, at_key), dotted(path), message))
