"""Source -> transforms -> sinks, joined: read `Pipeline.push` to see a batch go through, and `planning` how they were joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import attrs
import pyarrow as pa
from attrs import field, frozen, mutable

from lakeward.components import FILTERED, REJECTED, RESERVED_PORTS, ROW, Clocked, Holding, Named, Sink, Source, Stateful, Transform
from lakeward.config import Config
from lakeward.errors import LakewardError, OptionError

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
    waited: list[pa.Array[Any]] = field(factory=list)
    """Keys of the rows that transforms held back before."""
    waiting: list[pa.Array[Any]] = field(factory=list)
    """The same afterwards: these have no fate yet."""


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

    def __attrs_post_init__(self) -> None:
        for step in self.steps:
            if isinstance(step.transform, Named):
                step.transform.named(self.config.name)

    def push(self, rows: pa.RecordBatch, into: str = SOURCE[0]) -> Outcome:
        """Send rows through all transforms, or again into one of them: what else takes them from its inputs has them already."""
        outcome = Outcome(waited=[*self.waiting().values()])
        if into == SOURCE[0]:
            return self._flow({SOURCE: rows}, self.steps, outcome)
        index = [step.name for step in self.steps].index(into)
        return self._flow(self._applied(self.steps[index], rows, outcome), self.steps[index + 1 :], outcome)

    def waiting(self) -> dict[str, pa.Array[Any]]:
        """Keys of the rows that transforms hold back until they have seen those that follow."""
        return {step.name: rows.column(ROW) for step in self.steps for rows in _held(step.transform)}

    def finish(self, watermark: Any) -> Iterator[Outcome]:
        """Let each stateful transform, in order, give out what is complete at the watermark."""
        for index, step in enumerate(self.steps):
            if isinstance(step.transform, Stateful):
                outcome = Outcome(waited=[*self.waiting().values()])
                yield self._flow(self._ports(step, step.transform.finish(watermark), outcome), self.steps[index + 1 :], outcome)

    def _flow(self, streams: dict[Link, pa.RecordBatch], steps: Sequence[Step], outcome: Outcome) -> Outcome:
        for step in steps:
            if (rows := joined(streams, step.inputs)) is not None:
                streams |= self._applied(step, rows, outcome)
        for name, links in self.links.items():
            if (share := joined(streams, links)) is not None:
                outcome.shares[name] = share
        self._note_unlinked(streams, outcome)
        outcome.waiting = [*self.waiting().values()]
        return outcome

    def _applied(self, step: Step, rows: pa.RecordBatch, outcome: Outcome) -> dict[Link, pa.RecordBatch]:
        if isinstance(step.transform, Clocked):
            step.transform.clock(datetime.now(UTC))
        before = _held(step.transform)
        try:
            given = step.transform.apply(rows)
        except OptionError as error:
            raise OptionError(f"transforms.{step.name}{'.' * bool(error.option)}{error.option}", error.message) from error
        ports = self._ports(step, given, outcome)
        if step.transform.row_wise:
            took, gave = (sum(map(len, given)) for given in ([*before, rows], [*_held(step.transform), *ports.values()]))
            if took != gave:
                raise BrokenContract(f"transform {step.name!r} took {took} rows and gave {gave}; report it to the author of the plugin")
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
        pipeline = attrs.evolve(self, steps=[attrs.evolve(step, transform=_anew(step.transform)) for step in self.steps])
        for step in pipeline.steps:
            if isinstance(step.transform, Stateful) and step.inputs[0] in self.schemas:
                step.transform.apply(pa.RecordBatch.from_pylist([], self.schemas[step.inputs[0]]))
        return pipeline

    def close(self) -> None:
        """Close every component; one that cannot be closed keeps no other open."""
        with ExitStack() as stack:
            stack.callback(self.source.close)
            for sink in self.sinks.values():
                stack.callback(sink.close)


def _anew(transform: Transform) -> Transform:
    return attrs.evolve(transform) if isinstance(transform, Stateful) else transform  # type: ignore[misc]  # it is an attrs class


def joined(streams: Mapping[Link, pa.RecordBatch], links: Sequence[Link]) -> pa.RecordBatch | None:
    """The rows of several ports as one batch, again in the order of their keys; None when there are none."""
    batches = [streams[link] for link in links if link in streams and streams[link].num_rows]
    if len(batches) < 2:
        return batches[0] if batches else None
    together: pa.RecordBatch = pa.concat_batches(batches)  # type: ignore[attr-defined]  # missing in the stubs
    return together.sort_by(ROW) if ROW in together.schema.names else together


def _held(transform: Transform) -> list[pa.RecordBatch]:
    return [transform.held] if isinstance(transform, Holding) and transform.held else []  # an empty batch is false, too
