"""The real command line, changed for a test: `python -m crash.patched PATCH... -- ARGUMENTS...`.

A patch is `die:POINT:VISIT`, `plant:BUG`, `careless:WHAT`, `impatient:SECONDS` or `links:off`.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import sys
from collections.abc import Callable
from typing import Any


def apply(patches: list[str]) -> None:
    """Change this process."""
    from crash.planted import plant
    from crash.points import die_at
    from impatient_lakeward import hurry

    _announce_documents()
    makers: dict[str, Callable[..., None]] = {
        "plant": plant, "careless": careless, "links": links, "impatient": hurry,
        "die": lambda point, visit: die_at(point, int(visit)),
    }  # fmt: skip
    for patch in sorted(patches, reverse=True):  # bugs first: their calls must come by the points too
        kind, *values = patch.split(":")
        makers[kind](*values)


def links(_: str) -> None:
    """As when the spool and a sink are on two file systems."""

    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    os.link = link


def careless(what: str) -> None:
    """Forget to sync: `files` or `folders` of ours, the `state`, or what `delta` wrote."""
    if what == "state":
        _careless_about_the_state()
    elif what == "delta":
        from lakeward_plugins.sinks.delta.place import Place

        Place.sync_commits = lambda *_: None  # type: ignore[method-assign,assignment]
    else:
        forgotten = stat.S_ISDIR if what == "folders" else stat.S_ISREG
        fsync = os.fsync
        os.fsync = lambda handle: None if forgotten(os.fstat(handle).st_mode) else fsync(handle)  # type: ignore[assignment,arg-type]


def _careless_about_the_state() -> None:
    class Careless(sqlite3.Connection):
        def executescript(self, script: str) -> sqlite3.Cursor:
            return super().executescript(script.replace("synchronous=FULL", "synchronous=OFF"))

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Careless, **kwargs)  # type: ignore[assignment]


def _announce_documents() -> None:
    from crash.documents import ENTRY
    from lakeward import plugins

    found = plugins.entry_points  # type: ignore[attr-defined]
    plugins.entry_points = lambda **wanted: (*found(**wanted), ENTRY)  # type: ignore[attr-defined,assignment]


def main(arguments: list[str]) -> Any:
    """Run the command line with these arguments."""
    sys.argv = ["lakeward", *arguments]
    from lakeward.cli import main as lakeward

    return lakeward()


if __name__ == "__main__":
    end = sys.argv.index("--")
    apply(sys.argv[1:end])
    main(sys.argv[end + 1 :])
