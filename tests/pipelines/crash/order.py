"""The order in which a run writes, syncs, names and commits, which kill -9 cannot see: the kernel's cache outlives the process.

R0  no file is written under a name that readers look at
R1  a file is synced before it gets such a name
R2  a folder is synced after a name came into it, and
R3  all that before the commit in state.db that relies on it: RECORD for the spool, SETTLE for the folder of a sink

delta-rs syncs nothing, so for Delta tables only R3 holds: the sink syncs everything before its receipt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from crash.disk import Disk
from crash.trace import Event

LEFTOVER = re.compile(r"#\d+$|/\.tmp|\.tmp$|\.part$|/_last_checkpoint")
"""Names that no reader looks at, and a hint that may be lost."""


def violations(events: Sequence[Event], folder: Path) -> Counter[str]:
    """How often each rule was broken, with what the first of them was about, as `R1: bytes of raw/x.parquet`."""
    disk, found, first = Disk(str(folder)), Counter[str](), events[0].thread
    spool, lake, wal = f"{folder}/.lakeward/crash/spool/", f"{folder}/lake/", f"{folder}/.lakeward/crash/state.db-wal"
    areas: dict[int, set[str]] = {first: {spool}}
    sinks = {_sink(event, lake) for event in events} - {""}
    for event in events:
        for path in (event.path, event.other):
            if event.thread != first and event.kind != "write" and path.startswith(lake):
                areas.setdefault(event.thread, set()).add(_below(path, lake))
        if event.kind == "write" and _visible(event.path, folder):
            found["R0"] += 1
        if event.kind in ("rename", "link") and _visible(event.other, folder) and disk.names[event.path].pending:
            found["R1"] += 1
        disk.do(event)
        if event.kind == "sync" and event.path == wal:
            area = areas.get(event.thread, set()) | (sinks if event.thread != first and len(sinks) == 1 else set())
            unsure = [what for place in area for what in disk.unsure(place) if not LEFTOVER.search(what)]
            found["R2 and R3: a name"] += sum(what.startswith("name") for what in unsure)
            found["R3: bytes"] += sum(what.startswith("bytes") for what in unsure)
    return +found


def commits(events: Sequence[Event], folder: Path) -> int:
    """Commits of the state."""
    return sum(event.kind == "sync" and event.path == f"{folder}/.lakeward/crash/state.db-wal" for event in events)


def _visible(path: str, folder: Path) -> bool:
    """Whether readers look at such a name at once: not at data files of a Delta table, before a commit names them."""
    name = path.rpartition("/")[2]
    in_table = "/_delta_log/" in path or name.startswith("part-")
    return path.startswith(str(folder)) and name.endswith(".parquet") and not name.startswith(".") and not in_table


def _sink(event: Event, lake: str) -> str:
    return _below(event.path, lake) if event.path.startswith(lake) else ""


def _below(path: str, lake: str) -> str:
    return lake + path.removeprefix(lake).partition("/")[0] + "/"
