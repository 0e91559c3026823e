"""The steps of `lakeward doctor`: each is tried within a time limit, and says what it found and what to do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import urlsplit
from urllib.request import url2pathname

from attrs import define, frozen

from lakeward.cli.overdue import Overdue, within
from lakeward.cli.reaching import reach
from lakeward.components import Explaining, Probing, Sink
from lakeward.errors import LakewardError, OptionError, Refused, Retry

if TYPE_CHECKING:
    from lakeward.config import Config
    from lakeward.pipeline import Pipeline

LITTLE = 256 << 20  # bytes; the spool needs some of them


@runtime_checkable
class Reaching(Protocol):
    """What a sink has as well when it can say where its rows go, so that the way there can be tried."""

    def endpoints(self) -> Sequence[str]:
        """Addresses such as https://host or https://host:8081, and folders as file:///path. Raises `Refused`."""


@runtime_checkable
class TryingOut(Protocol):
    """What a sink has as well when it can write something that is no row, and remove it."""

    def try_out(self) -> str:
        """Do so; say in one line what was done. Raises `Retry` or `Refused`, with what to do."""


@frozen
class Finding:
    """What one step gave."""

    part: str
    """Such as `sink readings`."""
    step: str
    ok: bool | None
    """None when it could not be tried."""
    found: str
    todo: str = ""


@define
class Examination:
    """Of one pipeline."""

    timeout: float
    """Seconds for each step."""
    write: bool
    """Whether something small is written and removed."""
    stuck: bool = False
    """Whether something still goes on that did not answer in time."""

    def of_file(self, file: Path, overrides: Sequence[str], select: str | None, only: str | None, state_dir: Path | None) -> list[Finding]:
        """All steps. Raises ConfigError when there is no pipeline to try out."""
        from lakeward.cli.places import config_state_dir
        from lakeward.config import load
        from lakeward.planning import plan
        from lakeward.plugins import load_plugins

        config = load(file, overrides)
        if only is not None and only not in config.graph(select).sinks:
            raise LakewardError(f"no sink {only!r}; sinks are {', '.join(config.graph(select).sinks)}")
        plugins = load_plugins(allow=config.plugins.allow, disable=config.plugins.disable)
        try:
            pipeline = within(self.timeout, lambda: plan(config, plugins, select), "plan")
        except (Overdue, Retry, Refused) as error:
            self.stuck = self.stuck or isinstance(error, Overdue)
            return [Finding("source", "can be opened", False, str(error), "see that the input is there and that nothing locks it for long")]
        found = [Finding("configuration", "is right", True, f"{file}, graph {pipeline.graph}")]
        found += _folder("state", config_state_dir(config, state_dir), write=self.write)
        found += self._source(pipeline)
        for name in [only] if only else pipeline.sinks:
            found += self._sink(config, pipeline, name)
        try:
            within(self.timeout, pipeline.close, "close")
        except LakewardError:
            self.stuck = True
        return found

    def _source(self, pipeline: Pipeline) -> Iterator[Finding]:
        source = pipeline.source

        def first() -> str:
            for batch in source.read(None, 1):
                return "gives rows" if batch.rows.num_rows or batch.rejected is not None else "has no rows yet"
            return "has no rows yet"

        how = source.explain().splitlines()[0] if isinstance(source, Explaining) and source.explain() else ""
        yield self._step("source", "can be read", lambda: f"{first()}{f' ({how})' if how else ''}")

    def _sink(self, config: Config, pipeline: Pipeline, name: str) -> Iterator[Finding]:
        """Way, credentials, schema, writing: what follows a step that failed is not tried, as it would only say the same."""
        sink, part = pipeline.sinks[name], f"sink {name}"
        ways = self._ways(part, sink)
        yield from ways
        if any(one.ok is False for one in ways):
            yield Finding(part, "takes the rows", None, "not tried, as the step above failed")
            return
        schema = pipeline.schemas[pipeline.links[name][0]]
        fits = Finding(part, "takes the rows", None, "this sink cannot say so beforehand")
        if isinstance(sink, Probing):
            probing: Probing = sink
            fits = self._step(
                part, "takes the rows", lambda: probing.probe(schema), lambda option: self._place(config, pipeline, name, option)
            )
        yield fits
        if not self.write or not isinstance(sink, TryingOut):
            return
        trying: TryingOut = sink
        if fits.ok is False:
            yield Finding(part, "can be written", None, "not tried, as the step above failed")
        else:
            yield self._step(part, "can be written", trying.try_out)

    def _ways(self, part: str, sink: Sink) -> list[Finding]:
        if not isinstance(sink, Reaching):
            return []
        reaching: Reaching = sink
        found: list[Finding] = []
        try:
            endpoints = within(self.timeout, reaching.endpoints)
        except LakewardError as error:
            self.stuck = self.stuck or isinstance(error, Overdue)
            return [Finding(part, "has an address", False, str(error))]
        for endpoint in endpoints:
            if urlsplit(endpoint).scheme == "file":
                found += _folder(part, Path(url2pathname(urlsplit(endpoint).path)), write=self.write)
            else:
                found += (Finding(part, *one) for one in reach(endpoint, self.timeout))
        return found

    def _step(self, part: str, step: str, work: Callable[[], str], place: Callable[[str], str] = lambda _: "") -> Finding:
        try:
            return Finding(part, step, True, within(self.timeout, work, part))
        except Overdue as error:
            self.stuck = True
            return Finding(part, step, False, str(error), "see whether a firewall or a proxy holds it up, or give it more by --timeout")
        except OptionError as error:
            return Finding(part, step, False, error.message, f"correct {place(error.option)}")
        except Retry as error:
            return Finding(part, step, False, str(error), "it may work later, and a run would go on trying; see whether it lasts")
        except LakewardError as error:
            return Finding(part, step, False, *_parted(str(error)))

    def _place(self, config: Config, pipeline: Pipeline, name: str, option: str) -> str:
        from lakeward.yamlfile.build import steps

        path = config.graphs[pipeline.graph].sinks[name].path
        problem = config.problem((*path, *steps(option)), "")
        return f"{problem.place.file}:{problem.place.line}: {problem.path}"


def _parted(message: str) -> tuple[str, str]:
    """Messages say what is wrong; and what to do."""
    what, _, todo = message.rpartition("; ")
    return (what, todo) if what else (message, "")


def _folder(part: str, folder: Path, *, write: bool) -> Iterator[Finding]:
    """Whether this user may make it or write in it, and whether there is room."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(one))
    try:
        if not there.is_dir():
            raise NotADirectoryError(20, "is not a folder", str(there))
        if write:
            with tempfile.TemporaryFile(dir=there, prefix=".lakeward-doctor-") as file:
                file.write(b"trial")
                file.flush()
                os.fsync(file.fileno())
        elif not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(13, "this user may not write there", str(there))
        free = shutil.disk_usage(there).free
    except OSError as error:
        todo = "free some space" if error.errno == 28 else "give this user write permission there, or choose another folder"
        yield Finding(part, "folder", False, f"{there}: {error.strerror or error}", todo)
        return
    enough = free >= LITTLE
    yield Finding(part, "folder", enough, f"{folder}: {free >> 20:,} MB free", "" if enough else "free some space: rows wait on disk")
