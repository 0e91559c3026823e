"""A run as a command carries it out: signals, the wait for room, progress, the report, the exit code."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakeward.bell import Bell
from lakeward.cli.answer import answer
from lakeward.errors import NoRoom

if TYPE_CHECKING:  # the help of commands must not pay for pyarrow
    from lakeward.config import Config
    from lakeward.hookspecs import RunResult
    from lakeward.pipeline import Pipeline
    from lakeward.plugins import Plugins
    from lakeward.run import Run
    from lakeward.state import State

log = logging.getLogger("lakeward.run")
ROOM = 1.0  # seconds between looks whether there is room to begin


@contextmanager
def listening() -> Iterator[Bell]:
    """SIGTERM and SIGINT are heard from here on; when one has come, the process ends here and waits for nobody's threads."""
    bell = Bell()
    try:
        with bell.listen_for_signals():
            try:
                yield bell
            except SystemExit as end:
                if bell.stopping and isinstance(end.code, int):
                    end_process(end.code)
                raise
    finally:
        bell.close()


@contextmanager
def planned(config: Config, select: str | None) -> Iterator[tuple[Pipeline, Plugins]]:
    """The components of a pipeline, closed at the end."""
    from lakeward.planning import plan
    from lakeward.plugins import load_plugins

    plugins = load_plugins(allow=config.plugins.allow, disable=config.plugins.disable)
    pipeline = plan(config, plugins, select)
    try:
        yield pipeline, plugins
    finally:
        pipeline.close()


@contextmanager
def planned_when_possible(config: Config, select: str | None, bell: Bell, *, patient: bool) -> Iterator[tuple[Pipeline, Plugins]]:
    """The same; a run that is to go on waits for a source that cannot be looked at yet, such as a database that is locked."""
    from lakeward.errors import Retry
    from lakeward.pacing import pause_after

    with ExitStack() as stack:
        for failures in itertools.count(1):
            try:
                made = stack.enter_context(planned(config, select))
                break
            except Retry as error:
                if not patient:
                    raise
                if failures == 1:
                    log.warning("%s; the run begins as soon as it can be read", error)
                bell.wait(pause_after(failures, error))
        yield made


def show_progress(plugins: Plugins, log_format: str) -> None:
    """On a terminal, a line that counts."""
    if sys.stderr.isatty() and log_format == "text":
        from lakeward.cli.progress import Progress

        plugins.manager.register(Progress())


def carry_out(
    where: Path, begin: Callable[[State], Run], once: bool, bell: Bell, as_json: bool, ended: Callable[[State], None] = lambda _: None
) -> int:
    """Begin a run in a state directory, run it, tell what came out. `ended` is called when it is done. The exit code."""
    with ExitStack() as stack:
        state, run = _begun(stack, where, begin, once, bell)
        result = run.execute()
        if result.status == "done":
            ended(state)
        _tell(state, run, result, as_json)
        code = exit_code(result, bell)
        if run.abandoned:
            end_process(code)
    return code


def exit_code(result: RunResult, bell: Bell) -> int:
    """What a run's end means to a shell."""
    return {"done": 0, "failed": 1, "stopped": 128 + bell.stopping}[result.status]


def end_process(code: int) -> None:
    """Without waiting for anybody's threads. The state is held to the end: the next run may begin when nothing of this one goes on."""
    sys.stdout.flush()
    os._exit(code)


def _begun(stack: ExitStack, where: Path, begin: Callable[[State], Run], once: bool, bell: Bell) -> tuple[State, Run]:
    """Hold the state; where a full disk does not allow even that, wait."""
    from lakeward.deliver import PATIENCE
    from lakeward.room import Room
    from lakeward.state import State

    for attempt in itertools.count(1):
        try:
            with ExitStack() as opened:
                state = opened.enter_context(State.hold(where))
                run = begin(state)
                stack.push(opened.pop_all())
                return state, run
        except NoRoom as error:
            if once and attempt >= PATIENCE:
                raise
            if attempt == 1:
                log.error("%s; the run begins as soon as there is room", error)
            Room(where).release()
            bell.wait(ROOM)
    raise AssertionError("unreachable")


def _tell(state: State, run: Run, result: RunResult, as_json: bool) -> None:
    """What this run did, and all of them together."""
    from lakeward.cli.report import in_words, report

    found = report(state)
    seconds = (result.finished - run.info.started).total_seconds()
    this_run: dict[str, Any] = {
        "id": run.info.id, "status": result.status, "seconds": round(seconds, 3), "error": result.error,
        "read": result.read, "filtered": result.filtered, "dead": result.dead, "delivered": dict(result.delivered),
    }  # fmt: skip
    headline = f"{run.info.pipeline}: {result.status} in {seconds:.1f} s, {result.read:,} rows read in this run. In all:"
    answer({"pipeline": run.info.pipeline, "run": this_run, **found}, as_json, lambda: f"{headline}\n{in_words(found)}")
    if result.error:
        click.echo(f"lakeward: {result.error}", err=True)
