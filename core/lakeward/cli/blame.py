"""Whose bug it is: a traceback that goes through a plugin of somebody else should not be sent to us."""

from __future__ import annotations

import tempfile
import traceback
from importlib.metadata import Distribution, entry_points
from pathlib import Path

from lakeward.secrets import redact


def bug_report(error: BaseException) -> tuple[str, str]:
    """Keep the traceback in a file; what happened, and whom to send the file."""
    with tempfile.NamedTemporaryFile("w", prefix="lakeward-bug-", suffix=".log", delete=False) as log:
        log.write(redact("".join(traceback.format_exception(error))))
    place, what = authors_place(error), f"{type(error).__name__}: {error}"
    if place:
        return f"lakeward: this is a bug of {place}: {what}", f"Please report it to the authors of that plugin, with {log.name}"
    return f"lakeward: this is a bug: {what}", f"Please report it with {log.name}"


def authors_place(error: BaseException) -> str:
    """`lakeward-h3 0.1.0 (transform.py:20)`: the outermost line of a third party's plugin; empty when there is none."""
    others = [entry for entry in entry_points(group="lakeward") if entry.dist and entry.dist.name != "lakeward"]
    for frame, line in traceback.walk_tb(error.__traceback__):
        file, module = Path(frame.f_code.co_filename), frame.f_globals.get("__name__", "").partition(".")[0]
        for entry in others:
            if entry.dist and (module == entry.module.partition(".")[0] or _holds(entry.dist, file)):
                return f"{entry.dist.name} {entry.dist.version} ({file.name}:{line})"
    return ""


def _holds(distribution: Distribution, file: Path) -> bool:
    return any(Path(str(distribution.locate_file(part))) == file for part in distribution.files or ())
