"""`lakeward doctor`: try out everything that a pipeline needs, and say what to do where something fails."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lakeward.cli.answer import answer
from lakeward.cli.logs import start_logging
from lakeward.cli.places import json_option, pipeline_file, select_option, set_option, state_dir_option
from lakeward.errors import ConfigError

if TYPE_CHECKING:
    from lakeward.cli.examining import Finding

EPILOG = """\b
Examples:
  lakeward doctor pipeline.yaml              configuration, state, source, and of each sink: name, port, certificate, credentials, writing
  lakeward doctor pipeline.yaml --sink lake  of one sink only
  lakeward doctor pipeline.yaml --json

\b
It writes a trial object, file or item where rows would go, and removes it; --no-write does not. Exit code 1 when something fails."""
MARKS = {True: ("✓", "ok", "green"), False: ("✗", "FAILED", "red"), None: ("-", "-", "yellow")}


@click.command(short_help="Try out all that a pipeline needs.", epilog=EPILOG)
@pipeline_file
@click.option("--sink", metavar="NAME", help="Only this sink.")
@click.option("--write/--no-write", default=True, help="Write and remove something small where rows would go [default: --write].")
@click.option("--timeout", type=click.FloatRange(0.1), default=15.0, show_default=True, metavar="SECONDS", help="Longest time for a step.")
@state_dir_option
@select_option
@set_option
@json_option
def command(
    file: Path, sink: str | None, write: bool, timeout: float, state_dir: Path | None, select: str | None, overrides: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Try out the pipeline in FILE: what it reads, where it keeps its state, and whether each sink can be reached and written."""
    start_logging("text", "error")
    from lakeward.cli.examining import Examination, Finding

    examination = Examination(timeout, write)
    try:
        found = examination.of_file(file, overrides, select, sink, state_dir)
    except ConfigError as error:
        found = [Finding("configuration", "is right", False, str(problem)) for problem in error.problems]
    failed = sum(one.ok is False for one in found)
    told = [{"part": one.part, "step": one.step, "ok": one.ok, "found": one.found, "todo": one.todo} for one in found]
    answer({"ok": not failed, "steps": told}, as_json, lambda: _in_words(found, failed))
    if examination.stuck:
        from lakeward.cli.running import end_process  # what hangs would keep the process

        end_process(1)
    if failed:
        raise click.exceptions.Exit(1)


def _in_words(found: Sequence[Finding], failed: int) -> str:
    lively = sys.stdout.isatty()
    marks = {ok: click.style(mark, fg=colour) if lively else plain.ljust(6) for ok, (mark, plain, colour) in MARKS.items()}
    widths = [max(len(getattr(one, name)) for one in found) for name in ("part", "step")]
    lines = []
    for one in found:
        lines.append(f"{marks[one.ok]} {one.part.ljust(widths[0])}  {one.step.ljust(widths[1])}  {one.found}".rstrip())
        if one.todo:
            lines.append(f"  {'' if lively else ' ' * 5}{' ' * (sum(widths) + 4)}what to do: {one.todo}")
    end = f"{failed} of {len(found)} steps failed" if failed else "everything that was tried works"
    return "\n".join([*lines, "", end])
