"""Two thousand damaged databases: no traceback, no hang, and every row that SQLite can still find arrives or is named."""

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

ROWS = 600
HANGS = 120.0  # seconds without a word, on a machine that is busy with other things
TABLE = (
    "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, temperature REAL, level INTEGER, photo BLOB)",
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)",
    "CREATE INDEX by_time ON readings (timestamp)",
)


def originals(folder: Path) -> None:
    """Two databases with the same rows: one closed, one with half of its rows in a -wal file of a killed sensor, 50 in each transaction."""
    dice = random.Random(1)
    rows = [
        (key, f"2026-01-01T00:{key // 60:02}:{key % 60:02}Z", key / 7, key * 3, dice.randbytes(3000) if key % 50 == 0 else None)
        for key in range(1, ROWS + 1)
    ]
    for name in ("closed.db", "live.db"):
        connection = sqlite3.connect(folder / name, isolation_level=None)
        for sql in ("PRAGMA page_size = 1024", "PRAGMA synchronous = OFF", *TABLE):
            connection.execute(sql)
        if name == "live.db":
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        for first in (0, *range(ROWS // 2, ROWS, 50)):
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?)", rows[first : first + 50] if first else rows[: ROWS // 2])
            connection.execute("COMMIT")
            if name == "live.db" and not first:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if name == "live.db":
            for end in ("", "-wal"):
                (folder / f"killed.db{end}").write_bytes((folder / f"live.db{end}").read_bytes())
        connection.close()
    truth = {key: [time, temperature, level, photo and photo.hex()] for key, time, temperature, level, photo in rows}
    (folder / "truth.json").write_text(json.dumps(truth))


class Worker(threading.Thread):
    """One process that reads damaged files, ended when it says nothing for too long."""

    def __init__(self, folder: Path, seeds: range) -> None:
        super().__init__()
        script = str(Path(__file__).with_name("damaged_files.py"))
        self.command = [sys.executable, script, str(folder), str(seeds.start), str(len(seeds))]
        self.found: list[dict] = []
        self.errors = ""

    def run(self) -> None:
        with subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            more = True
            while more:
                watchdog = threading.Timer(HANGS, process.kill)
                watchdog.start()
                line = process.stdout.readline()
                watchdog.cancel()
                more = bool(line)
                self.found += [json.loads(line)] if line else []
            self.errors = process.stderr.read()


def read_damaged(folder: Path, seeds: range, workers: int) -> list[dict]:
    originals(folder)
    shares = [range(first, min(first + -(-len(seeds) // workers), seeds.stop)) for first in seeds[:: -(-len(seeds) // workers)]]
    running = [Worker(folder, share) for share in shares]
    for worker in running:
        worker.start()
    for worker, share in zip(running, shares, strict=True):
        worker.join()
        assert len(worker.found) == len(share), f"seed {share.start + len(worker.found)} crashed or hung: {worker.errors[-2000:]}"
    return [one for worker in running for one in worker.found]


def check(folder: Path, found: list[dict]) -> Counter:
    """No row that another SQLite still finds is missing without a word. Returns how often each thing happened."""
    truth = json.loads((folder / "truth.json").read_text())
    for one in found:
        assert one["end"] == "done" or one["end"].split(":")[0] in ("Corrupt", "OptionError", "Refused", "Retry"), one
        lost = silently_lost(folder / f"{one['seed']}.db", one["missing"], truth) if one["missing"] else []
        assert not lost, f"seed {one['seed']} ({one['kind']}, {one['end']}): rows {lost[:5]} are lost in silence"
    counts = Counter(one["end"].split(":")[0] for one in found)
    counts["rows as they were written"] = sum(one["same"] for one in found)
    counts["rows that changed unnoticed"] = sum(one["other"] for one in found)
    counts["files with ranges"] = sum(one["ranges"] > 0 for one in found)
    return counts


def test_damaged_databases_lose_nothing_in_silence(tmp_path: Path) -> None:
    counts = check(tmp_path, read_damaged(tmp_path, range(200), 1))
    assert counts["files with ranges"] > 20
    assert counts["rows as they were written"] > 200 * ROWS / 2


@pytest.mark.slow
@pytest.mark.one_python
def test_two_thousand_damaged_databases_lose_nothing_in_silence(tmp_path: Path) -> None:
    first = int(os.environ.get("LAKEWARD_FUZZ_SEED", "1000"))
    counts = check(tmp_path, read_damaged(tmp_path, range(first, first + 2000), 2))
    print(dict(counts))
    assert counts["files with ranges"] > 200


def silently_lost(path: Path, keys: list[int], truth: dict) -> list[int]:
    """Those of the missing rows that another SQLite finds by their key, as they were written."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        found = []
        for key in keys:
            try:
                row = connection.execute("SELECT timestamp, temperature, level, photo FROM readings WHERE id = ?", (key,)).fetchone()
            except sqlite3.Error:
                continue
            if row and [row[0] and row[0].decode(errors="replace"), row[1], row[2], row[3] and row[3].hex()] == truth[str(key)]:
                found.append(key)
        return found
