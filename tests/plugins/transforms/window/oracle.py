"""Windows as the rule says, one row after the other, in plain Python: slow, and nothing of it is shared with the transform."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NEVER = -math.inf
Slot = tuple[Any, float]
"""Key and start, in seconds."""


@dataclass
class Held:
    key: Any
    start: float
    last: float
    end: float
    rows: list[tuple[float, int, Any]] = field(default_factory=list)
    out: bool = False
    closed: bool = False
    revision: int = 0


@dataclass
class Told:
    """What a table says of a window in the end."""

    end: float
    revision: int
    final: bool
    partial: bool
    rows: list[tuple[float, int, Any]]


@dataclass
class Oracle:
    """`spans` gives the windows of a moment; without it they are sessions with `gap`."""

    wait: float
    lateness: float
    scope: str = "key"
    idle: float | None = None
    emit: str = "on_close"
    spans: Callable[[float], list[tuple[float, float]]] | None = None
    gap: float = 0.0
    newest: dict[Any, float] = field(default_factory=lambda: defaultdict(lambda: NEVER))
    newest_of_all: float = NEVER
    held: list[Held] = field(default_factory=list)
    table: dict[Slot, Told] = field(default_factory=dict)
    status: list[str] = field(default_factory=list)

    def watermark(self, key: Any) -> float:
        own = self.newest[key if self.scope == "key" else None]
        if self.idle is not None:
            own = max(own, self.newest_of_all - self.idle)
        return own - self.wait

    def add(self, moment: float, key: Any, value: Any, number: int) -> None:
        """Judge the row by the watermark before it, and then let time pass."""
        mark = self.watermark(key)
        row = (moment, number, value)
        self.status.append(self._session(row, key, mark) if self.spans is None else self._grid(row, key, mark))
        clock = key if self.scope == "key" else None
        self.newest[clock] = max(self.newest[clock], moment)
        self.newest_of_all = max(self.newest_of_all, moment)
        self._pass(self.watermark)

    def finish(self) -> None:
        self._pass(lambda key: math.inf)

    def _grid(self, row: tuple[float, int, Any], key: Any, mark: float) -> str:
        assert self.spans is not None
        found = set()
        for start, end in self.spans(row[0]):
            if end + self.lateness <= mark:
                found.add("late")
                continue
            found.add("update" if end <= mark else "on time")
            here = [one for one in self.held if (one.key, one.start) == (key, start)]
            one = here[0] if here else Held(key, start, row[0], end)
            self.held += [] if here else [one]
            self._changed(one, row, end <= mark)
        return next(word for word in ("on time", "update", "late") if word in found)

    def _session(self, row: tuple[float, int, Any], key: Any, mark: float) -> str:
        moment = row[0]
        met = [one for one in self.held if one.key == key and one.last > moment - self.gap and one.start < moment + self.gap]
        last = max([moment, *(one.last for one in met)])
        if last + self.gap + self.lateness <= mark:
            return "late"
        start = min([moment, *(one.start for one in met)])
        same = [one for one in met if one.start == start]
        for one in met:
            if one.start != start:
                self.held.remove(one)
                if one.out:  # it is no more
                    self.table[key, one.start] = Told(one.last + self.gap, one.revision + 1, True, False, [])
        new = same[0] if same else Held(key, start, last, 0)
        self.held += [] if same else [new]
        new.rows = [each for one in met for each in one.rows]
        new.last, new.end = last, last + self.gap
        self._changed(new, row, new.end <= mark)
        return "update" if new.end <= mark else "on time"

    def _changed(self, one: Held, row: tuple[float, int, Any], over: bool) -> None:
        one.rows = [*one.rows, row]
        one.revision += one.out
        one.closed = over
        if self.emit == "on_batch" or (self.emit == "on_close" and over):
            self._tell(one, final=False)

    def _pass(self, watermark: Callable[[Any], float]) -> None:
        for one in list(self.held):
            mark = watermark(one.key)
            if one.end <= mark and not one.closed:
                one.closed = True
                if self.emit != "on_final":
                    one.revision += one.out and self.emit == "on_batch"
                    self._tell(one, final=one.end + self.lateness <= mark)
            if one.end + self.lateness <= mark:
                self.held.remove(one)
                if self.emit == "on_final":
                    self._tell(one, final=True)

    def _tell(self, one: Held, *, final: bool) -> None:
        one.out = True
        self.table[one.key, one.start] = Told(one.end, one.revision, final, not one.closed, one.rows)
