"""The plan: source -> transforms -> sinks, joined.

Read `plan` to see how a configuration becomes components and links, and `Pipeline.push` to see a batch go through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from graphlib import CycleError, TopologicalSorter
from typing import Any

import attrs
import pyarrow as pa
from attrs import field, frozen, mutable

from lakeward.components import FILTERED, MEMBERS, REJECTED, RESERVED_PORTS, ROW, Sink, Source, Stateful, Transform
from lakeward.config import Config, Graph, Node
from lakeward.errors import ConfigError, LakewardError, OptionError, Problem
from lakeward.plugins import PluginError, Plugins
from lakeward.secrets import SecretReference
from lakeward.yamlfile.build import Mistakes, build, steps, suggestion

Link = tuple[str, str]
"""A node's name and one of its ports."""
MAIN = "main"
SOURCE: Link = ("source", MAIN)


class BrokenContract(LakewardError):
    """A plugin did what its contract forbids; the run fails before anything of this batch is recorded."""


@mutable(eq=False)
class Outcome:
    """Where the rows of one batch went."""

    shares: dict[str, pa.RecordBatch] = field(factory=dict)
    """Rows for each sink; sinks without rows are left out."""
    dead: list[tuple[str, pa.RecordBatch]] = field(factory=list)
    """Rejected rows with the node that rejected them."""
    filtered: Counter[str] = field(factory=Counter)
    """Rows removed on purpose, by `node: rule`."""
    taken: list[pa.Array[Any]] = field(factory=list)
    """Keys of the rows that went into windows, alerts and the like."""
    removed: list[pa.Array[Any]] = field(factory=list)
    """Keys of the filtered rows."""


@frozen(eq=False)
class Step:
    """One transform in its place."""

    name: str
    inputs: Sequence[Link]
    transform: Transform


@frozen(eq=False)
class Pipeline:
    """Components, joined. One graph of one configuration."""

    config: Config
    graph: str
    source: Source
    steps: Sequence[Step]
    sinks: Mapping[str, Sink]
    links: Mapping[str, Sequence[Link]]
    """What each sink takes."""
    schemas: dict[Link, pa.Schema] = field(factory=dict)

    def push(self, rows: pa.RecordBatch, into: str = SOURCE[0]) -> Outcome:
        """Send rows through all transforms, or again into one of them: what else takes them from its inputs has them already."""
        outcome = Outcome()
        if into == SOURCE[0]:
            return self._flow({SOURCE: rows}, self.steps, outcome)
        index = [step.name for step in self.steps].index(into)
        return self._flow(self._applied(self.steps[index], rows, outcome), self.steps[index + 1 :], outcome)

    def finish(self, watermark: Any) -> Iterator[Outcome]:
        """Let each stateful transform, in order, give out what is complete at the watermark."""
        for index, step in enumerate(self.steps):
            if isinstance(step.transform, Stateful):
                outcome = Outcome()
                yield self._flow(self._ports(step, step.transform.finish(watermark), outcome), self.steps[index + 1 :], outcome)

    def _flow(self, streams: dict[Link, pa.RecordBatch], steps: Sequence[Step], outcome: Outcome) -> Outcome:
        for step in steps:
            rows = joined(streams, step.inputs)
            if rows is not None:
                streams |= self._applied(step, rows, outcome)
        for name, links in self.links.items():
            share = joined(streams, links)
            if share is not None:
                outcome.shares[name] = share
        self._note_unlinked(streams, outcome)
        return outcome

    def _applied(self, step: Step, rows: pa.RecordBatch, outcome: Outcome) -> dict[Link, pa.RecordBatch]:
        ports = self._ports(step, step.transform.apply(rows), outcome)
        if step.transform.row_wise:
            _check_row_wise(step.name, rows, ports)
        elif ROW in rows.schema.names:
            outcome.taken.append(rows.column(ROW))
        return ports

    def _ports(self, step: Step, given: pa.RecordBatch | Mapping[str, pa.RecordBatch], outcome: Outcome) -> dict[Link, pa.RecordBatch]:
        """What a transform gave, by node and port; the reserved ports are noted in the outcome as well."""
        ports = dict(given) if isinstance(given, Mapping) else {MAIN: given}
        for port, rows in ports.items():
            if port == REJECTED and rows.num_rows:
                outcome.dead.append((step.name, rows))
            elif port == FILTERED and rows.num_rows:
                for rule in rows.column("_rule").value_counts():  # type: ignore[attr-defined]  # missing in the stubs
                    outcome.filtered[f"{step.name}: {rule['values']}"] += rule["counts"].as_py()
                if ROW in rows.schema.names:
                    outcome.removed.append(rows.column(ROW))
            elif port not in RESERVED_PORTS:
                known = self.schemas.setdefault((step.name, port), rows.schema)
                if port not in step.transform.ports or not rows.schema.equals(known):
                    wrong = f"other columns than before on port {port!r}" if port in step.transform.ports else f"undeclared port {port!r}"
                    raise BrokenContract(f"transform {step.name!r} gave {wrong}; report it to the author of the plugin")
        return {(step.name, port): rows for port, rows in ports.items()}

    def _note_unlinked(self, streams: Mapping[Link, pa.RecordBatch], outcome: Outcome) -> None:
        """Rows on a port that nobody takes are left out on purpose, by the YAML; they are counted under its name."""
        linked = {link for links in self.links.values() for link in links} | {link for step in self.steps for link in step.inputs}
        for (name, port), rows in streams.items():
            if (name, port) not in linked and port not in RESERVED_PORTS and rows.num_rows:
                outcome.filtered[f"{name}.{port}: nothing takes it"] += rows.num_rows
                if ROW in rows.schema.names:
                    outcome.removed.append(rows.column(ROW))

    def fresh(self) -> Pipeline:
        """The same with new transforms for those that remember; as in a plan, they have seen an empty batch."""
        steps = list(self.steps)
        for place, step in enumerate(steps):
            if isinstance(step.transform, Stateful):
                steps[place] = attrs.evolve(step, transform=attrs.evolve(step.transform))  # type: ignore[misc]  # it is an attrs class
                if step.inputs[0] in self.schemas:
                    steps[place].transform.apply(pa.RecordBatch.from_pylist([], self.schemas[step.inputs[0]]))
        return attrs.evolve(self, steps=steps)

    def close(self) -> None:
        """Close every component; one that cannot be closed keeps no other open."""
        with ExitStack() as stack:
            stack.callback(self.source.close)
            for sink in self.sinks.values():
                stack.callback(sink.close)


def joined(streams: Mapping[Link, pa.RecordBatch], links: Sequence[Link]) -> pa.RecordBatch | None:
    """The rows of several ports as one batch, again in the order of their keys; None when there are none."""
    batches = [streams[link] for link in links if link in streams and streams[link].num_rows]
    if len(batches) < 2:
        return batches[0] if batches else None
    together: pa.RecordBatch = pa.concat_batches(batches)  # type: ignore[attr-defined]  # missing in the stubs
    return together.sort_by(ROW) if ROW in together.schema.names else together


def _check_row_wise(name: str, rows: pa.RecordBatch, ports: Mapping[Link, pa.RecordBatch]) -> None:
    leaving = sum(given.num_rows for given in ports.values())
    if leaving != rows.num_rows:
        raise BrokenContract(f"transform {name!r} took {rows.num_rows} rows and gave {leaving}; report it to the author of the plugin")


# -- from a configuration to a pipeline --------------------------------------------------------------------------------


def plan(config: Config, plugins: Plugins, select: str | None = None) -> Pipeline:
    """Build and join all components. Raises ConfigError with all mistakes; reads nothing but schemas."""
    return _Planner(config, plugins).plan(config.graph(select))


class _Planner:
    def __init__(self, config: Config, plugins: Plugins) -> None:
        self._config, self._plugins = config, plugins
        self._problems: list[Problem] = []

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
            return build(cls, self._revealed(node, dict(node.options), ()), self._config.folder)
        except Mistakes as mistakes:
            for one in mistakes.mistakes:
                self._wrong(node, one.path, one.message, one.at_key)
        except OptionError as error:
            self._wrong(node, steps(error.option), error.message)
        return None

    def _revealed(self, node: Node, value: Any, path: tuple[str | int, ...]) -> Any:
        """The options with secret references resolved by plugins."""
        if isinstance(value, dict):
            return {key: self._revealed(node, item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._revealed(node, item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, SecretReference):
            return value
        where = ".".join(map(str, path))
        try:
            secret = self._plugins.manager.hook.lakeward_resolve_secret(scheme=value.scheme, ref=value.ref)
        except OptionError as error:
            raise OptionError(where, error.message) from error
        if secret is None:
            raise OptionError(
                where,
                f"no plugin that is ready knows secrets of the kind ${{{value.scheme}:...}}; lakeward's own `secrets` knows env and file",
            )
        return secret

    def _links(self, graph: Graph, transforms: Mapping[str, type | None]) -> dict[str, list[Link]]:
        links: dict[str, list[Link]] = {}
        above = "source"
        for name, node in graph.transforms.items():
            links[name] = self._inputs(node, above, transforms)
            above = name
        for name, node in graph.sinks.items():
            links[name] = self._inputs(node, above, transforms)
        return links

    def _inputs(self, node: Node, above: str, transforms: Mapping[str, type | None]) -> list[Link]:
        links = []
        for text in node.inputs or (above,):
            name, dot, port = text.partition(".")
            if name != "source" and name not in transforms:
                self._wrong(node, ("from",), f"nothing named {name!r}" + suggestion(name, ["source", *transforms]))
                continue
            cls = transforms.get(name)
            ports: Sequence[str] = getattr(cls, "ports", ()) if cls else (MAIN,)
            if name != "source" and cls is None:
                continue  # its own mistake is reported already
            if not dot and MAIN not in ports:
                wanted = " or ".join(f"{name}.{each}" for each in ports)
                self._wrong(node, ("from",), f"{name!r} has several ports: write `from: {wanted}`", at_key=not node.inputs)
            elif dot and port not in ports:
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
