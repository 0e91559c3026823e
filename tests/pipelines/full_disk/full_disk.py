"""Fill and free the disk of a running lakeward's state at random, and kill it: `full_disk.py FOLDER MEGABYTES SECONDS SEED`.

Run it where it may mount a volume: `unshare -m` as root, `unshare -rm` as somebody else; the mount goes away with the process.
The state is on a volume of so many megabytes, source and lake are not, except for one sink with `near` as the last argument.
Prints what happened as one line of JSON, and ends with 1 when a row is lost, is there twice, or lakeward does not recover by itself.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb

YAML = """
name: full
source: {use: sqlite, path: sensor.db}
transforms:
  windows:
    use: window
    from: source
    window: {size: 10s}
    max_out_of_orderness_s: 0
    allowed_lateness_s: 0
    emit: on_final
    aggregations: {value: [sum, count]}
sinks:
  raw: {use: parquet, from: source, path: lake/raw}
  sums: {use: parquet, from: windows, path: lake/sums}
batch: {rows: 20000, wait: 20ms}
"""
NEAR = "  near: {use: parquet, from: windows, path: volume/near}\n"
RECOVERS_WITHIN = 100.0  # seconds; a sink's own pause may be 60
START = 1_767_225_600  # 2026-01-01T00:00:00Z


class Story:
    """One run of the program with everything that is done to it."""

    def __init__(self, folder: Path, seed: int, near: bool) -> None:
        self.folder, self.volume = folder, folder / "volume"
        self.dice = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._program: subprocess.Popen[bytes] | None = None
        self._ballast: list[Path] = []
        self._log = (folder / "log").open("ab")
        (folder / "pipeline.yaml").write_text(YAML.replace("sinks:\n", f"sinks:\n{NEAR}") if near else YAML)

    def keep_running(self) -> None:
        """Start the program, again when it ended, which it should never do by itself."""
        if self._program and self._program.poll() is None:
            return
        if self._program and self._program.returncode != -signal.SIGKILL:
            self.counts["ended by itself"] += 1
        self.counts["starts"] += 1
        command = [sys.executable, "-m", "lakeward", "run", "pipeline.yaml", "--state-dir", "volume/state"]
        self._program = subprocess.Popen(command, cwd=self.folder, stdout=self._log, stderr=self._log)

    def kill(self) -> None:
        """As the out-of-memory killer does."""
        self.counts["kills"] += 1
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait."""
        assert self._program
        self._program.send_signal(number)
        return self._program.wait(30)

    def fill(self) -> None:
        """Take nearly all or all room."""
        self.counts["fills"] += 1
        path = self.volume / f"ballast-{self.counts['fills']}"
        free = os.statvfs(self.volume)
        floor = free.f_blocks * free.f_frsize // 16  # where reading pauses; more exciting is what happens just above it
        left = self.dice.choice([0, 4096, floor, floor + 20_000, floor + 100_000, floor + 400_000])
        with path.open("wb", buffering=0) as file:
            self._ballast.append(path)
            try:
                os.posix_fallocate(file.fileno(), 0, max(4096, free.f_bavail * free.f_frsize - left))
            except OSError:
                self.counts["fills cut short"] += 1

    def free(self, everything: bool = False) -> None:
        """Give some of it back."""
        self.dice.shuffle(self._ballast)
        while self._ballast and (everything or self.dice.random() < 0.7):
            self._ballast.pop().unlink()

    def disturb(self, seconds: float) -> None:
        """Until the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.keep_running()
            self.free(everything=self.dice.random() < 0.7)
            time.sleep(self.dice.uniform(0.2, 2.0))
            for _ in range(self.dice.randrange(1, 4)):
                self.fill()
                time.sleep(self.dice.uniform(0.02, 0.5))
            if self.dice.random() < 0.25:
                self.kill()

    def recover(self, wanted: int, make_room: bool = True) -> float:
        """There is room again: seconds until every row has arrived, with no help from us."""
        if make_room:
            self.free(everything=True)
        self.keep_running()
        began = time.monotonic()
        while in_lake(self.folder) < wanted:
            self.keep_running()
            if time.monotonic() - began > RECOVERS_WITHIN:
                return -1.0
            time.sleep(0.2)
        return time.monotonic() - began


@contextmanager
def sensor(folder: Path, seed: int) -> Iterator[list[int]]:
    """Writes all the time; the rows have noise in them, so that they take room."""
    dice, stop, written = random.Random(seed + 1), threading.Event(), [0]
    with closing(sqlite3.connect(folder / "sensor.db")) as made:
        made.executescript(
            "PRAGMA journal_mode=WAL; CREATE TABLE readings "
            "(id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp INTEGER, sensor_id TEXT, value INTEGER, noise TEXT)"
        )

    def write() -> None:
        with closing(sqlite3.connect(folder / "sensor.db")) as database:
            while not stop.wait(dice.uniform(0.01, 0.1)):
                many = dice.randrange(1, 1500)
                rows = [(START + (written[0] + n) // 400, f"s{n % 3}", n % 97, dice.randbytes(100).hex()) for n in range(many)]
                with database:
                    database.executemany("INSERT INTO readings (timestamp, sensor_id, value, noise) VALUES (?, ?, ?, ?)", rows)
                written[0] += many

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield written
    finally:
        stop.set()
        writer.join()


def in_lake(folder: Path) -> int:
    """Rows that have arrived."""
    if not any((folder / "lake" / "raw").glob("*.parquet")):
        return 0
    return int(duckdb.sql(f"SELECT count(*) FROM '{folder}/lake/raw/*.parquet'").fetchall()[0][0])


def wrong(folder: Path, near: bool) -> list[str]:
    """What the source and the lake do not agree on."""
    with closing(sqlite3.connect(folder / "sensor.db")) as database:
        rows = Counter(database.execute("SELECT id, timestamp, sensor_id, value, noise FROM readings"))
        query = "SELECT sensor_id, timestamp / 10 * 10, count(*), sum(value) FROM readings GROUP BY 1, 2"
        sums = Counter(database.execute(query))
    windows = "sensor_id, epoch(window_start)::BIGINT, record_count, sum_value::BIGINT"
    places = {"lake/raw": ("id, timestamp, sensor_id, value, noise", rows), "lake/sums": (windows, sums)}
    found = []
    for place, (columns, wanted) in (places | ({"volume/near": (windows, sums)} if near else {})).items():
        there = Counter(duckdb.sql(f"SELECT {columns} FROM '{folder}/{place}/*.parquet'").fetchall())
        if there != wanted:
            some = list((there - wanted).items())[:3]
            found.append(f"{place}: {(wanted - there).total()} lost or wrong, {(there - wanted).total()} too many, such as {some}")
    return found


def mount(folder: Path, megabytes: int) -> None:
    """A volume of its own for the state."""
    (folder / "volume").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder / "volume")], check=True)


def main(folder: Path, megabytes: int, seconds: float, seed: int, near: bool) -> int:
    """The whole story."""
    mount(folder, megabytes)
    story = Story(folder, seed, near)
    with sensor(folder, seed) as written:
        story.disturb(seconds)
    try:
        recovered = story.recover(written[0])
        stopped = story.end(signal.SIGTERM)
    finally:
        if story._program and story._program.poll() is None:
            story._program.kill()
    command = [sys.executable, "-m", "lakeward", "run", "pipeline.yaml", "--state-dir", "volume/state", "--once", "--finish"]
    last = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    log = (folder / "log").read_text()
    story.counts["pauses"], story.counts["goings on"] = log.count("WARNING disk: the disk"), log.count("disk: works again")
    story.counts["batches cut short"] = log.count("found no room half-way")
    problems = wrong(folder, near)
    if recovered < 0:
        problems.append("did not recover")
    if stopped != 128 + signal.SIGTERM or last.returncode:
        problems.append(f"ended with {stopped} and {last.returncode}: {last.stderr[-500:]}")
    if story.counts["ended by itself"] or "Traceback" in log:
        problems.append(f"ended by itself or with a traceback: {log[-3000:]}")
    print(json.dumps({"rows": written[0], "recovered in": round(recovered, 1), **story.counts, "problems": problems}))
    return bool(problems)


def to_the_last_byte(folder: Path) -> int:
    """What waits in the spool is delivered, settled and removed on a disk without a free byte: the reserve is there for that."""
    mount(folder, 6)
    (folder / "lake").mkdir()
    (folder / "lake" / "raw").touch()  # so that the sink refuses
    story = Story(folder, 0, near=False)
    with sensor(folder, 0) as written:
        while written[0] < 3000:
            time.sleep(0.05)
    once = [sys.executable, "-m", "lakeward", "run", "pipeline.yaml", "--state-dir", "volume/state", "--once"]
    refused = subprocess.run(once, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    (folder / "lake" / "raw").unlink()
    while os.statvfs(folder / "volume").f_bavail:
        with (folder / "volume" / f"ballast-{time.monotonic_ns()}").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 4096)
    story.keep_running()
    try:
        recovered = story.recover(written[0], make_room=False)
        time.sleep(2)
        waiting = [path.name for path in (folder / "volume" / "state" / "spool").iterdir()]
        stopped = story.end(signal.SIGTERM)
    finally:
        story.kill()
    for ballast in (folder / "volume").glob("ballast-*"):
        ballast.unlink()
    last = subprocess.run([*once, "--finish"], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    found = {"refused": refused.returncode, "recovered": recovered >= 0, "waiting": waiting, "stopped": stopped}
    print(json.dumps(found | {"last": last.returncode, "wrong": wrong(folder, near=False), "log": (folder / "log").read_text()}))
    return 0


if __name__ == "__main__":
    if sys.argv[2:] == ["to-the-last-byte"]:
        sys.exit(to_the_last_byte(Path(sys.argv[1])))
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5:] == ["near"]))
