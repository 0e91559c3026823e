"""The real command line, as a process of its own in a folder, and a sensor's database for it to read."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

PATIENCE = 300  # seconds that a test waits for what a running program must do


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lakeward", *arguments]
    known = os.environ | environment
    return subprocess.Popen(command, cwd=folder, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    """What it said when it has ended by itself, with this exit code and without a traceback."""
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code, (out, errors)
    assert "Traceback" not in errors
    return subprocess.CompletedProcess(process.args, code, out, errors)


def lakeward(folder: Path, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    return ended(start(folder, *arguments, **environment), code)


@contextmanager
def running(folder: Path, pause: float, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`lakeward run`, without `--once`, logging to the file `log`, with pauses of at most so many seconds between attempts."""
    command = [sys.executable, str(Path(__file__).with_name("impatient_lakeward.py")), str(pause), "run", "pipeline.yaml"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(true: Callable[[], object], process: subprocess.Popen[bytes], folder: Path) -> None:
    """While the program of `running` goes on."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert process.poll() is None, f"lakeward ended: {(folder / 'log').read_text()[-2000:]}"
        assert time.monotonic() < end, f"waited in vain: {(folder / 'log').read_text()[-2000:]}"
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    """In order, as a service manager does."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def write_readings(folder: Path, many: int) -> None:
    """All of one moment, for tests that count."""
    with closing(sqlite3.connect(folder / "sensor.db")) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, temperature REAL)")
        rows = [("2026-01-01T00:00:00Z", float(number)) for number in range(many)]
        database.executemany("INSERT INTO readings (timestamp, temperature) VALUES (?, ?)", rows)
