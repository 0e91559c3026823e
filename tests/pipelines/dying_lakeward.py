"""The real command line, with one step of the data flow patched to die by SIGKILL: `dying_lakeward.py POINT VISIT ARGUMENTS...`.

POINT is `before_` or `after_` and a step, or `inside_record` or `inside_refuse`; the process dies at the VISIT-th time it comes there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from lakeward.cli import main
from lakeward.deliver import Courier
from lakeward.pipeline import Pipeline
from lakeward.spool import Spool
from lakeward.state import State
from lakeward_plugins.sinks.delta import DeltaSink
from lakeward_plugins.sinks.parquet import ParquetSink
from lakeward_plugins.sources.sqlite.database import Database

STEPS: dict[str, list[tuple[type, str]]] = {
    "read": [(Database, "_take")],
    "transform": [(Pipeline, "push")],
    "spool": [(Spool, "write")],
    "record": [(State, "record")],
    "deliver": [(ParquetSink, "deliver"), (DeltaSink, "deliver")],
    "settle": [(State, "settle")],
    "part": [(Courier, "_spooled")],
    "refuse": [(State, "refuse")],
    "drop": [(Spool, "drop")],
}
INSIDE = {"record": "_count", "refuse": "_remove"}


def die_at(point: str, visit: int) -> None:
    when, _, step = point.partition("_")
    visits = 0

    def reach() -> None:
        nonlocal visits
        visits += 1
        if visits == visit:
            os.kill(os.getpid(), signal.SIGKILL)

    targets = [(State, INSIDE[step])] if when == "inside" else STEPS[step]
    for owner, name in targets:
        setattr(owner, name, _around(getattr(owner, name), reach, after=when == "after"))


def _around(function: Callable[..., Any], reach: Callable[[], None], after: bool) -> Callable[..., Any]:
    def dying(*args: Any, **kwargs: Any) -> Any:
        if not after:
            reach()
        result = function(*args, **kwargs)
        if after:
            reach()
        return result

    return dying


if __name__ == "__main__":
    die_at(sys.argv[1], int(sys.argv[2]))
    sys.argv[1:] = sys.argv[3:]
    main()
