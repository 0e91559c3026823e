"""From a configuration to a pipeline: read `plan` to see how nodes become components, and how they are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from typing import Any

import attrs
import pyarrow as pa

from lakeward.components import MEMBERS, RESERVED_PORTS
from lakeward.config import Config, Graph, Node
from lakeward.errors import ConfigError, OptionError, Problem
from lakeward.options import init_fields
from lakeward.pipeline import MAIN, SOURCE, Link, Pipeline, Step
from lakeward.plugins import PluginError, Plugins
from lakeward.secrets import Secret, SecretReference
from lakeward.yamlfile.build import Mistakes, build, steps, suggestion, unwrapped


def plan(config: Config, plugins: Plugins, select: str | None = None) -> Pipeline:
    """Build and join all components. Raises ConfigError with all mistakes; reads nothing but schemas."""
    return _Planner(config, plugins).plan(config.graph(select))


class _Planner:
    def __init__(self, config: Config, plugins: Plugins) -> None:
        self._config, self._plugins = config, plugins
        self._problems: list[Problem] = []
        self._blocks: dict[Any, dict[str, str]] = {}  # by node, the block that an option stands in

    def plan(self, graph: Graph) -> Pipeline:
        source_class = self._class("source", self._config.source)
        transforms = {name: self._class("transform", node) for name, node in graph.transforms.items()}
        sinks = {name: self._class("sink", node) for name, node in graph.sinks.items()}
        links = self._links(graph, transforms)
        order = self._order(graph, links)
        self._refuse_rows_twice(graph, links, transforms)
        source = self._build(source_class, self._config.source)
        built = {name: self._build(transforms[name], graph.transforms[name]) for name in order}
        built_sinks = {name: self._build(cls, graph.sinks[name]) for name, cls in sinks.items()}
        steps = [Step(name, links[name], built[name]) for name in order if built[name] is not None]
        pipeline = Pipeline(self._config, graph.name, source, steps, built_sinks, {name: links[name] for name in graph.sinks})
        if source is not None:
            self._learn_schemas(pipeline, graph)
        if self._problems:
            for component in (source, *built_sinks.values()):
                if component is not None:
                    component.close()
            raise ConfigError(self._problems)
        return pipeline

    def _wrong(self, node: Node, below: tuple[str | int, ...], message: str, at_key: bool = False) -> None:
        if below and (block := self._blocks.get(node.path, {}).get(str(below[0]))):
            below = (block, *below)
        self._problems.append(self._config.problem((*node.path, *below), message, at_key))

    def _class(self, kind: Any, node: Node) -> type | None:
        try:
            return _complete(kind, self._plugins.load(*self._plugins.find(kind, node.use)))
        except PluginError as error:
            self._wrong(node, ("use",), str(error))
            return None

    def _build(self, cls: type | None, node: Node) -> Any:
        if cls is None:
            return None
        try:
            flat = unwrapped(cls, node.options)
            self._blocks[node.path] = dict.fromkeys(flat.keys() - node.options.keys(), getattr(cls, "block", ""))
            options = self._revealed(_with_references(cls, flat), ())
            return build(cls, self._by_default(cls, options) | options, self._config.folder)
        except Mistakes as mistakes:
            for one in mistakes.mistakes:
                self._wrong(node, one.path, one.message, one.at_key)
        except OptionError as error:
            self._wrong(node, steps(error.option), error.message)
        return None

    def _by_default(self, cls: type, given: Mapping[str, Any]) -> dict[str, Secret]:
        """The secrets that a class looks for when none are given; where there is none it finds the reference, and may do without."""
        found = {}
        for one in init_fields(cls):
            if isinstance(one.default, SecretReference) and one.name not in given:
                with suppress(OptionError):
                    found[one.name] = self._secret(one.default, ())
        return found

    def _revealed(self, value: Any, path: tuple[str | int, ...]) -> Any:
        """The options with secret references resolved by plugins."""
        if isinstance(value, dict):
            return {key: self._revealed(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._revealed(item, (*path, index)) for index, item in enumerate(value)]
        return self._secret(value, path) if isinstance(value, SecretReference) else value

    def _secret(self, reference: SecretReference, path: tuple[str | int, ...]) -> Secret:
        where = ".".join(map(str, path))
        try:
            secret: Secret | None = self._plugins.manager.hook.lakeward_resolve_secret(scheme=reference.scheme, ref=reference.ref)
        except OptionError as error:
            raise OptionError(where, error.message) from error
        if secret is None:
            kind = f"${{{reference.scheme}:...}}"
            raise OptionError(where, f"no plugin that is ready knows secrets of the kind {kind}; lakeward itself knows env and file")
        return secret

    def _links(self, graph: Graph, transforms: Mapping[str, type | None]) -> dict[str, list[Link]]:
        links, above = dict[str, list[Link]](), "source"
        for name, node in {**graph.transforms, **graph.sinks}.items():
            links[name] = self._inputs(node, above, transforms)
            above = name if name in graph.transforms else above
        return links

    def _inputs(self, node: Node, above: str, transforms: Mapping[str, type | None]) -> list[Link]:
        links = []
        for text in node.inputs or (above,):
            name, dot, port = text.partition(".")
            if name != "source" and name not in transforms:
                self._wrong(node, ("from",), f"nothing named {name!r}" + suggestion(name, ["source", *transforms]))
                continue
            if name != "source" and transforms[name] is None:
                continue  # its own mistake is reported already
            ports: Sequence[str] = getattr(transforms.get(name), "ports", (MAIN,))
            if not dot and MAIN not in ports:
                wanted = " or ".join(f"{name}.{each}" for each in ports)
                self._wrong(node, ("from",), f"{name!r} has several ports: write `from: {wanted}`", at_key=not node.inputs)
            elif dot and (port := getattr(transforms.get(name), "port_synonyms", {}).get(port, port)) not in ports:
                self._wrong(node, ("from",), f"{name!r} has no port {port!r}" + suggestion(port, ports))
            else:
                links.append((name, port or MAIN))
        return links

    def _refuse_rows_twice(self, graph: Graph, links: Mapping[str, Sequence[Link]], transforms: Mapping[str, type | None]) -> None:
        """A row must not take effect twice: no port is joined with itself, or with one that its rows came through."""
        for name, joins in links.items():
            for place, link in enumerate(joins):
                again = {link} & set(joins[:place])
                for other in again or _made_from(link, links, transforms) & set(joins):
                    found = "is there twice" if again else f"has rows of {'.'.join(other)}, which is there too"
                    message = f"{'.'.join(link)} {found}, so they would take effect twice; take one of them only"
                    self._wrong(graph.transforms.get(name) or graph.sinks[name], ("from",), message)

    def _order(self, graph: Graph, links: Mapping[str, Sequence[Link]]) -> list[str]:
        before = {name: [upstream for upstream, _ in links[name] if upstream != "source"] for name in graph.transforms}
        try:
            return list(TopologicalSorter(before).static_order())
        except CycleError as error:
            circle = error.args[1]
            self._wrong(graph.transforms[circle[0]], ("from",), f"goes round in a circle: {' -> '.join(reversed(circle))}")
            return []

    def _learn_schemas(self, pipeline: Pipeline, graph: Graph) -> None:
        """Send an empty batch through, so that a missing column is found before the first row."""
        schemas = pipeline.schemas
        try:
            schemas[SOURCE] = pipeline.source.schema()
        except OptionError as error:
            self._wrong(self._config.source, steps(error.option), error.message)
            return
        for step in pipeline.steps:
            node = graph.transforms[step.name]
            incoming = self._incoming(node, step.inputs, schemas)
            if incoming is None:
                continue
            try:
                given = step.transform.apply(pa.RecordBatch.from_arrays([pa.nulls(0, one.type) for one in incoming], schema=incoming))
            except OptionError as error:
                self._wrong(node, steps(error.option), error.message)
                continue
            ports = dict(given) if isinstance(given, Mapping) else {MAIN: given}
            schemas.update({(step.name, port): rows.schema for port, rows in ports.items() if port not in RESERVED_PORTS})
        for name, links in pipeline.links.items():
            incoming = self._incoming(graph.sinks[name], links, schemas)
            sink: Any = pipeline.sinks[name]  # None when it could not be built
            stamp = sink.encoding.inserted_at if sink else ""
            if incoming is not None and stamp in incoming.names:
                self._wrong(graph.sinks[name], ("inserted_at",), f"the rows have a column {stamp!r} already; choose another name")

    def _incoming(self, node: Node, links: Sequence[Link], schemas: Mapping[Link, pa.Schema]) -> pa.Schema | None:
        known = [schemas[link] for link in links if link in schemas]
        if not links or len(known) < len(links):
            return None
        for link, schema in zip(links[1:], known[1:], strict=True):
            if not schema.equals(known[0]):
                one, other = ".".join(links[0]), ".".join(link)
                self._wrong(node, ("from",), f"{one} and {other} have different columns; bring them to one schema first")
                return None
        return known[0]


def _with_references(cls: type, options: dict[str, Any]) -> dict[str, Any]:
    """`{secret: NAME}` in the place of a secret, as old configurations have it, is `${env:NAME}`."""
    secrets = {one.name for one in init_fields(cls) if one.type in (Secret, "Secret")}
    for name in secrets & options.keys():
        given = options[name].get("secret") if isinstance(options[name], dict) and len(options[name]) == 1 else None
        if isinstance(given, str) and given.isidentifier() and given.isupper():  # else it may be the secret itself
            options[name] = SecretReference("env", given)
    return options


def _made_from(link: Link, links: Mapping[str, Sequence[Link]], transforms: Mapping[str, type | None]) -> set[Link]:
    """The ports that the rows of this one came through; sums of rows and alerts are rows of their own."""
    found, reached = set[Link](), [link]
    while reached:
        name = reached.pop()[0]
        if getattr(transforms.get(name), "row_wise", False):
            reached += set(links[name]) - found
            found |= set(links[name])
    return found - {link}


def _complete(kind: Any, cls: type) -> type:
    members = {*dir(cls), *(field.name for field in attrs.fields(cls))} if attrs.has(cls) else {*dir(cls)}
    lost = [*(["@attrs.define"] if not attrs.has(cls) else []), *(member for member in MEMBERS[kind] if member not in members)]
    if lost:
        raise PluginError(f"{cls.__module__}:{cls.__name__} is a {kind} without {', '.join(lost)}; report it to the author of the plugin")
    return cls
