"""The tables that simulated sensors write: in WAL mode, in small transactions, as sensors do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from lakeward import Refused

TABLE = "sensor_readings"
COLUMNS = {
    "timestamp": "TEXT NOT NULL", "sensor_id": "TEXT NOT NULL", "temperature": "REAL", "humidity": "REAL", "pressure": "REAL",
    "vibration": "REAL", "voltage": "REAL", "status_code": "INTEGER", "anomaly_flag": "INTEGER", "anomaly_type": "TEXT",
    "firmware_version": "TEXT", "model": "TEXT", "manufacturer": "TEXT", "location": "TEXT", "latitude": "REAL", "longitude": "REAL",
    "original_timezone": "TEXT", "synced": "INTEGER DEFAULT 0",
}  # fmt: skip
Row = tuple[str | int | float | None, ...]
INSERT = f"INSERT INTO {TABLE} ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
LOCK_PATIENCE = 30.0  # seconds until another writer must have let go


class Tables:
    """The databases of a fleet, open for writing as sensors write: in WAL mode, in small transactions."""

    def __init__(self, paths: Iterable[Path], *, fresh: bool) -> None:
        """Raises OSError or ValueError, with its path, when one of them cannot be used."""
        self._open: dict[Path, sqlite3.Connection] = {}
        try:
            for path in paths:
                self._open[path] = _opened(path, fresh)
        except BaseException:
            self.close()
            raise

    def write(self, readings: Iterable[tuple[Path, Row]]) -> None:
        """Commit these rows, one transaction for each database. Raises Refused when one of them takes no more."""
        rows: dict[Path, list[Row]] = {}
        for path, row in readings:
            rows.setdefault(path, []).append(row)
        for path, some in rows.items():
            try:
                with self._open[path] as connection:
                    connection.executemany(INSERT, some)
            except sqlite3.Error as error:
                raise Refused(f"{path}: a reading cannot be written: {error}; what was written before stays") from error

    def close(self) -> None:
        """Give the files back; their logs are merged into them."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()


def _opened(path: Path, fresh: bool) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{path}: a file is where its folder should be") from error
    _refuse_other_files(path)
    if fresh:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    try:
        connection = sqlite3.connect(path, timeout=LOCK_PATIENCE)
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise ValueError("SQLite cannot keep a write-ahead log here (is it a network file system?); choose a local folder")
    connection.execute("PRAGMA synchronous=NORMAL")
    with connection:
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (id INTEGER PRIMARY KEY AUTOINCREMENT, {columns})")
    there = {name for _, name, *_ in connection.execute(f"PRAGMA table_info({TABLE})")}
    if lost := COLUMNS.keys() - there:
        raise ValueError(f"its table {TABLE} has no column {', '.join(sorted(lost))}; choose another file, or --fresh")


def _refuse_other_files(path: Path) -> None:
    """A slip of the hand with --fresh must not cost somebody a file of another kind."""
    if not path.exists():
        return
    with path.open("rb") as file:
        if file.read(16) not in (b"", b"SQLite format 3\x00"):
            raise ValueError(f"{path}: is no SQLite database; choose another file")
