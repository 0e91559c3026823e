"""What a command costs, and what a run that goes on costs."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
# what would make a start dearer than a user's, or let one environment see another's packages
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}


@dataclass(frozen=True)
class Cost:
    """Of one whole process with its children."""

    cpu: float
    """Seconds, user and system."""
    wall: float
    peak_mb: float


def cost(command: Sequence[str], folder: Path, extra: Mapping[str, str] | None = None) -> Cost:
    """Run a command in a folder, with `extra` in its environment; end with what it said when it fails."""
    began = time.perf_counter()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=ENVIRONMENT | dict(extra or {}))
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed: {' '.join(command)}\n{(folder / 'log').read_text(errors='replace')[-2000:]}")
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - began, used.ru_maxrss / 1024)


def cost_of_waiting(command: Sequence[str], folder: Path, database: Path, seconds: int) -> float:
    """CPU seconds a second of a run that goes on, while a sensor writes one row a second."""
    with (folder / "log").open("wb") as log, closing(sqlite3.connect(database, isolation_level=None)) as sensor:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=ENVIRONMENT)
        try:
            _write(sensor, 5)  # start-up is told elsewhere
            before, began = _used(process.pid), time.perf_counter()
            _write(sensor, seconds)
            spent, lasted = _used(process.pid) - before, time.perf_counter() - began
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    return spent / lasted


def _write(sensor: sqlite3.Connection, rows: int) -> None:
    """The newest row again, with an id and a sensor of its own."""
    names = [name for _, name, *_ in sensor.execute("PRAGMA table_info(sensor_readings)")][1:]
    for _ in range(rows):
        columns = ", ".join(names)
        sensor.execute(f"INSERT INTO sensor_readings ({columns}) SELECT {columns} FROM sensor_readings ORDER BY reading_id DESC LIMIT 1")
        time.sleep(1)


def _used(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
