"""Places where the program can be made to die, by name.

A point is `before_` or `after_` and a step, or `inside_` and what only a patch can cut in two. The steps are those of the data flow,
and the calls by which names and bytes become durable.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

from lakeward.components import Sink
from lakeward.deliver import Courier
from lakeward.pipeline import Pipeline
from lakeward.spool import Spool
from lakeward.state import State
from lakeward_plugins.sources.sqlite.database import Database

STEPS: dict[str, list[tuple[Any, str]]] = {
    "read": [(Database, "_poll")],
    "transform": [(Pipeline, "push")],
    "spool": [(Spool, "write")],
    "record": [(State, "record")],
    "deliver": [],  # of whatever sinks there are
    "settle": [(State, "settle")],
    "drop": [(Spool, "drop")],
    "fsync": [(os, "fsync")],
    "rename": [(os, "rename")],
    "link": [(os, "link")],
}
OF_PARTS: dict[str, list[tuple[Any, str]]] = {"part": [(Courier, "_spooled")], "refuse": [(State, "refuse")]}
"""What happens only when a sink rejects rows."""
POINTS = [f"{when}_{step}" for step in STEPS for when in ("before", "after")] + ["inside_record"]
visits: Counter[str] = Counter()
_fatal: dict[str, int] = {}


def reach(point: str) -> None:
    """Die here if that is the place, and the time."""
    visits[point] += 1
    if _fatal.get(point) == visits[point]:
        os.kill(os.getpid(), signal.SIGKILL)


def die_at(point: str, visit: int) -> None:
    """Let this process die at the so many-th time that it comes to a point."""
    _fatal[point] = visit
    for step, targets in (STEPS | OF_PARTS).items():
        for owner, name in targets:
            around(owner, name, step)
    for_each_sink(lambda sink: around(sink, "deliver", "deliver"))
    around(State, "_count", "record", before="inside_record")
    around(State, "_remove", "refuse", before="inside_refuse")


def for_each_sink(change: Callable[[type], None]) -> None:
    """Change the class of each sink, whatever it is, when it gets its courier."""
    hire, changed = Courier.__init__, set[type]()

    def hired(self: Courier, name: str, sink: Sink, *args: Any, **kwargs: Any) -> None:
        if type(sink) not in changed:
            changed.add(type(sink))
            change(type(sink))
        hire(self, name, sink, *args, **kwargs)

    Courier.__init__ = hired  # type: ignore[method-assign,assignment]


def around(owner: Any, name: str, step: str, before: str = "") -> None:
    """Wrap a function so that it comes by its two points."""
    function: Callable[..., Any] = getattr(owner, name)

    @wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        reach(before or f"before_{step}")
        result = function(*args, **kwargs)
        if not before:
            reach(f"after_{step}")
        return result

    setattr(owner, name, watched)
