"""A sensor that writes until it is ended: `python -m crash.writer sensor.db --journal wal --seed 1`."""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from crash import pipeline
from crash.program import environment


@contextmanager
def writing(folder: Path, journal: str = "wal", seed: int = 0, rate: float = 1000.0) -> Iterator[None]:
    """Let a sensor write `rate` rows a second, as a process of its own; it ends after the transaction in hand."""
    arguments = [str(folder / "sensor.db"), "--journal", journal, "--seed", str(seed), "--rate", str(rate)]
    process = subprocess.Popen([sys.executable, "-m", "crash.writer", *arguments], env=environment())
    try:
        yield
        assert process.poll() is None, f"the sensor ended by itself, with {process.returncode}"
    finally:
        process.terminate()
        process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--journal", choices=("wal", "delete"), default="wal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1000.0)
    options = parser.parse_args()
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    luck = random.Random(options.seed)
    database = pipeline.connect(options.file, options.journal)
    (last,) = database.execute("SELECT coalesce(max(id), 0) FROM readings").fetchone()
    stream = pipeline.readings(last, options.seed)
    due, parent = time.monotonic(), os.getppid()
    while not stopped and os.getppid() == parent:
        rows = list(islice(stream, luck.randint(1, 30)))
        pipeline.insert(database, rows)
        due = max(due + len(rows) / options.rate, time.monotonic() - 1)  # a late sensor catches up, but not for ever
        time.sleep(max(0.0, due - time.monotonic()))
    database.close()


if __name__ == "__main__":
    main()
