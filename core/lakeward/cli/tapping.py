"""What goes into a transform of a pipeline and what comes out, over its real source. Nothing is delivered, recorded or remembered.

For commands of plugins that measure what their transform does: `with tapped(file) as taps: for before, after in taps.rows("private")`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import attrs
from attrs import field, frozen

from lakeward.errors import LakewardError

if TYPE_CHECKING:  # the help of commands must not pay for pyarrow
    import pyarrow as pa

    from lakeward.components import Transform
    from lakeward.pipeline import Pipeline, Step

Ports = Mapping[str, "pa.RecordBatch"]


@contextmanager
def tapped(file: Path, overrides: Sequence[str] = (), select: str | None = None) -> Iterator[Taps]:
    """The transforms of the pipeline in a file. Raises ConfigError as a run would."""
    from lakeward.cli.logs import start_logging
    from lakeward.cli.running import planned
    from lakeward.config import load

    start_logging("text", "warning")
    with planned(load(file, overrides), select) as (pipeline, _):
        yield Taps(pipeline)


@frozen(eq=False)
class Taps:
    """A pipeline of which a part can be run."""

    _pipeline: Pipeline

    @property
    def transforms(self) -> dict[str, Transform]:
        """By the name that the YAML gives them."""
        return {step.name: step.transform for step in self._pipeline.steps}

    def rows(self, name: str, limit: int) -> Iterator[tuple[pa.RecordBatch, Ports]]:
        """The batches that go into a transform without state and what it makes of them, until so many rows of the source are read."""
        from lakeward.components import Keeping

        steps, tap = self._up_to(name)
        part = attrs.evolve(self._pipeline, steps=steps, sinks={}, links={})
        with TemporaryDirectory(prefix="lakeward-") as folder:
            if isinstance(part.source, Keeping):
                part.source.keep_in(Path(folder))
            for batch in part.source.read(None, min(limit, part.config.batch.rows)):
                part.push(batch.rows.slice(0, limit))
                while tap.noted:
                    yield tap.noted.pop()
                limit -= batch.rows.num_rows
                if limit <= 0:
                    return

    def passing_by(self, names: Collection[str]) -> dict[str, pa.Schema]:
        """The sinks that take rows which came from the source through none of these transforms, and their columns."""
        inputs = {step.name: step.inputs for step in self._pipeline.steps}

        def passes(node: str) -> bool:
            return node not in names and (node == "source" or any(passes(above) for above, _ in inputs[node]))

        return {
            sink: self._pipeline.schemas[links[0]] for sink, links in self._pipeline.links.items() if any(passes(node) for node, _ in links)
        }

    def _up_to(self, name: str) -> tuple[list[Step], _Tap]:
        steps = list(self._pipeline.steps)
        places = [place for place, step in enumerate(steps) if step.name == name]
        if not places:
            raise LakewardError(f"there is no transform {name!r}; there are {', '.join(step.name for step in steps) or 'none'}")
        tap = _Tap(steps[places[0]].transform)
        return [*steps[: places[0]], attrs.evolve(steps[places[0]], transform=tap)], tap  # type: ignore[arg-type]  # it is of an instance what others are of a class


@frozen(eq=False)
class _Tap:
    """Stands in the place of a transform and notes what goes in and out."""

    transform: Transform
    noted: list[tuple[pa.RecordBatch, Ports]] = field(factory=list)

    @property
    def ports(self) -> tuple[str, ...]:
        return self.transform.ports

    @property
    def row_wise(self) -> bool:
        return self.transform.row_wise

    def apply(self, batch: pa.RecordBatch) -> Ports:
        given = self.transform.apply(batch)
        ports = given if isinstance(given, Mapping) else {"main": given}
        self.noted.append((batch, ports))
        return ports
