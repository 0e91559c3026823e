"""What the sinks should hold, worked out from the source, and what they do hold. Shares no code with lakeward.

The source is read with the standard library, Parquet with DuckDB, Delta tables with Polars. Rows are compared as multisets: a row is
`lost` when a sink lacks it, `twice` when it has it more often than the source, `wrong` when it has other values under its key, or a key
that is not in the source. A file that cannot be read is `unreadable`, whatever else is in the sink.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars
from attrs import field, frozen

from crash.pipeline import BAD, HOT, WINDOW

if TYPE_CHECKING:
    from crash.elsewhere import Place

COLUMNS = "id, timestamp, sensor_id, temperature"
LATEST = ("table_latest", "local_latest", "duck_latest", "merged", "items_latest")
"""Sinks that keep one row of each sensor."""
SUMS = "sensor_id, epoch_us(window_start), record_count, sum_temperature"
Rows = Counter[tuple[object, ...]]


@frozen
class Verdict:
    """How a life ended."""

    rows: int
    windows: int
    faults: Counter[tuple[str, str]] = field(factory=Counter)
    """How often, by sink and kind of fault; nothing when all is well."""
    example: str = ""

    def total(self, kind: str, *sinks: str) -> int:
        """Faults of one kind, in all sinks or some."""
        return sum(count for (sink, each), count in self.faults.items() if each == kind and (not sinks or sink in sinks))

    def __str__(self) -> str:
        faults = ", ".join(f"{sink}: {count} {kind}" for (sink, kind), count in sorted(self.faults.items()))
        return f"{self.rows} rows, {self.windows} windows: {faults or 'exact'}{f' ({self.example})' if self.example else ''}"


def judge(folder: Path, sinks: tuple[str, ...] = ("raw", "sums", "cool", "hot"), place: Place | None = None) -> Verdict:
    """Compare all sinks with the source, after a run that delivered everything and finished the windows."""
    source, bad = in_source(folder)
    sums = sums_of(source)
    expected = {
        "sums": sums,
        "cool": Counter({row: count for row, count in source.items() if float(str(row[3])) <= HOT}),
        "hot": Counter({row: count for row, count in source.items() if float(str(row[3])) > HOT}),
        **dict.fromkeys(LATEST, latest_of(source)),
    }
    verdict = Verdict(source.total(), sums.total())
    examples: list[str] = []
    for sink in sinks:
        key = 2 if sink == "sums" else 1
        try:
            found = read(sink, folder, place)
        except BaseException as error:  # whatever a reader says of a file that it cannot read; Polars panics
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            verdict.faults[sink, "unreadable"] += 1
            examples.append(f"{sink}: {str(error)[:200]}")
        else:
            compare(sink, expected.get(sink, source), found, key, verdict.faults, examples)
    _look_at_state(folder, bad, verdict.faults, examples)
    if place and (left := place.leftovers()):
        verdict.faults["place", "left"] += left
    return Verdict(verdict.rows, verdict.windows, +verdict.faults, examples[0] if examples else "")


def in_source(folder: Path) -> tuple[Rows, Rows]:
    """The rows, and the keys of those that cannot be rows."""
    with closing(sqlite3.connect(folder / "sensor.db", timeout=30)) as database:
        rows = database.execute(f"SELECT {COLUMNS} FROM readings").fetchall()
    return Counter(row for row in rows if row[3] != BAD), Counter((row[0],) for row in rows if row[3] == BAD)


def sums_of(rows: Rows) -> Rows:
    """What each window of each sensor must say."""
    windows: dict[tuple[object, int], list[float]] = {}
    for (_, time, sensor, temperature), count in rows.items():
        second = int(datetime.fromisoformat(str(time)).timestamp())
        windows.setdefault((sensor, second // WINDOW * WINDOW * 1_000_000), []).extend([float(str(temperature))] * count)
    return Counter((*key, len(values), sum(values)) for key, values in windows.items())


def latest_of(rows: Rows) -> Rows:
    """The row of each sensor with the greatest id."""
    newest: dict[object, tuple[object, ...]] = {}
    for row in sorted(rows, key=lambda row: int(str(row[0]))):
        newest[row[2]] = row
    return Counter(newest.values())


def read(sink: str, folder: Path, place: Place | None) -> Rows:
    """What is in a sink, here or elsewhere."""
    if sink in READERS:
        return READERS[sink](folder / "lake")
    assert place, f"{sink} is elsewhere"
    return place.rows(sink)


def in_parquet(folder: Path, columns: str) -> Rows:
    if not any(folder.glob("*.parquet")):
        return Counter()
    with duckdb.connect() as reader:
        return Counter(reader.execute(f"SELECT {columns} FROM '{folder}/*.parquet'").fetchall())


def in_delta(folder: Path) -> Rows:
    if not (folder / "_delta_log").is_dir() or not any((folder / "_delta_log").glob("*.json")):
        return Counter()
    return Counter(polars.read_delta(str(folder)).select(COLUMNS.split(", ")).rows())


def in_database(file: Path, table: str) -> Rows:
    with closing(sqlite3.connect(file)) as database:
        return Counter(database.execute(f"SELECT {COLUMNS} FROM {table}").fetchall())


def in_duckdb(file: Path, table: str) -> Rows:
    with duckdb.connect(str(file), read_only=True) as database:
        return Counter(database.execute(f"SELECT {COLUMNS} FROM {table}").fetchall())


READERS: dict[str, Callable[[Path], Rows]] = {
    "raw": lambda lake: in_parquet(lake / "raw", COLUMNS),
    "sums": lambda lake: in_parquet(lake / "sums", SUMS),
    "cool": lambda lake: in_delta(lake / "cool"),
    "hot": lambda lake: in_delta(lake / "hot"),
    "table": lambda lake: in_delta(lake / "table"),
    "archive": lambda lake: in_parquet(lake / "archive", COLUMNS),
    "documents": lambda lake: in_database(lake / "documents.db", "documents"),
    "local": lambda lake: in_database(lake / "local.db", "readings"),
    "local_latest": lambda lake: in_database(lake / "local.db", "latest"),
    "duck": lambda lake: in_duckdb(lake / "readings.duckdb", "readings"),
    "duck_latest": lambda lake: in_duckdb(lake / "latest.duckdb", "latest"),
    "table_latest": lambda lake: in_delta(lake / "latest"),
}


def compare(sink: str, expected: Rows, found: Rows, key: int, faults: Counter[tuple[str, str]], examples: list[str]) -> None:
    """Count what is lost, twice and wrong; the first `key` values of a row tell which one it is."""
    missing, extra = expected - found, found - expected
    strange = Counter({row: count for row, count in extra.items() if row not in expected})
    wrong = Counter(row[:key] for row in strange.elements())
    lost = Counter(row[:key] for row in missing.elements()) - wrong  # another row has its place
    faults[sink, "lost"] += lost.total()
    faults[sink, "twice"] += (extra - strange).total()
    faults[sink, "wrong"] += strange.total()
    if missing or extra:
        examples.append(f"{sink}: missing {list(missing)[:2]}, too many {list(extra)[:2]}")


def _look_at_state(folder: Path, bad: Rows, faults: Counter[tuple[str, str]], examples: list[str]) -> None:
    """Nothing waits any more, every row that is none is one dead letter, and the file is sound."""
    state = folder / ".lakeward" / "crash"
    faults["spool", "left"] += len(list((state / "spool").iterdir()))
    try:
        with closing(sqlite3.connect(state / "state.db")) as database:
            dead = Counter(database.execute("SELECT row_low FROM dead_letters").fetchall())
            problems = [said for (said,) in database.execute("PRAGMA integrity_check") if said != "ok"]
    except sqlite3.DatabaseError as error:
        dead, problems = bad, [str(error)]
    if problems:
        faults["state", "unreadable"] += 1
        examples.append(f"state: {problems[0]}")
    compare("dead letters", bad, dead, 1, faults, examples)


def photograph(folder: Path, sinks: tuple[str, ...] = (), place: Place | None = None) -> dict[str, str]:
    """Every file of the sinks, by its content; of `sinks` that are elsewhere, all rows."""
    files = (path for path in sorted((folder / "lake").rglob("*")) if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    seen = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return seen | {sink: str(sorted(read(sink, folder, place).items())) for sink in sinks if sink not in READERS}
