"""The end of a local table's log: an append is one file more, so it costs the same whatever the table holds.

delta-rs lists the whole log several times for each commit, and syncs nothing. A commit from here is synced before it gets its name,
which a hard link gives to one writer only. Who comes second reads what the other committed, and takes the next version.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from lakeward.durable import sync
from lakeward.notes import Note
from lakeward_plugins.sinks.delta.notes import as_transactions, transactions

CROWD = 1_000  # versions of others to read one by one, before it is better to load the table anew
TEMPORARY = "_commit_*.json.tmp"  # names that nobody reads
DAY = 86_400


def is_current(log: Path, version: int) -> bool:
    """Whether the versions after this one are all still there, if there are any: only those before a checkpoint are ever removed."""
    return _file(log, version).exists() and _checkpoint(log) <= version


def _checkpoint(log: Path) -> int:
    """The newest version that readers may begin with."""
    try:
        return int(json.loads((log / "_last_checkpoint").read_bytes())["version"])
    except (OSError, ValueError, KeyError):
        return 0


def append(log: Path, version: int, note: Note, adds: Sequence[AddAction], name: str) -> int:
    """Commit files and their note as the first version after `version` that is free; gives that version.

    Raises CommitFailedError when somebody changed the table or made this very commit in between, OSError where there are no hard links.
    """
    done = {"operation": "WRITE", "operationParameters": {"mode": "Append"}, "isBlindAppend": True}
    actions: list[dict[str, object]] = [{"commitInfo": {"timestamp": time.time_ns() // 1_000_000, **done}}]
    actions += [{"txn": {"appId": each.app_id, "version": each.version}} for each in as_transactions(note)]
    actions += map(_as_action, adds)
    temporary = log / TEMPORARY.replace("*", f"{name}-{os.getpid()}-{threading.get_ident()}")
    with temporary.open("w") as file:
        file.write("\n".join(json.dumps(action) for action in actions) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        for candidate in range(version + 1, version + CROWD):
            try:
                os.link(temporary, _file(log, candidate))
            except FileExistsError:
                _require_no_conflict(_file(log, candidate).read_bytes(), note)
            else:
                sync(log)
                if _checkpoint(log) >= candidate:  # the log may have been cut off while we were at it: then nobody reads this version
                    raise CommitFailedError("a checkpoint was made in the meantime; whether it has this commit only a look can say")
                return candidate
    finally:
        temporary.unlink(missing_ok=True)
    raise CommitFailedError(f"others committed {CROWD:,} versions in the meantime")


def _as_action(add: AddAction) -> dict[str, object]:
    """As delta-rs writes it: a path in the log is a URL."""
    about = {
        "path": quote(add.path, safe="/="),
        "partitionValues": add.partition_values,
        "size": add.size,
        "modificationTime": add.modification_time,
    }
    return {"add": {**about, "dataChange": add.data_change, "stats": add.stats}}


def tidy(log: Path) -> None:
    """Remove what attempts left that were killed, more than a day ago."""
    for temporary in log.glob(TEMPORARY):
        with suppress(FileNotFoundError):
            if time.time() - temporary.stat().st_mtime > DAY:
                temporary.unlink()


def _require_no_conflict(commit: bytes, note: Note) -> None:
    """Rows of others are none, whatever they add or remove: ours are added without having read any."""
    if any("metaData" in action or "protocol" in action for action in map(json.loads, commit.splitlines())):
        raise CommitFailedError("another writer changed the table")
    if any(txn["appId"] == note.id for txn in transactions(commit)):
        raise CommitFailedError("another writer delivers for this sink")


def _file(log: Path, version: int) -> Path:
    return log / f"{version:020d}.json"
