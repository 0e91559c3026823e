"""A network that spoils half of all requests: `python -m crash.network --batches 120 --least 20`.

The real program delivers so many batches to each sink that is elsewhere, and more until each fault has come as often as asked for. Then
every row must be there once, nothing be given up, refused or left; the oracle judges.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from attrs import frozen
from faultproxy import FAULTS, OK, FaultProxy

from crash import pipeline
from crash.elsewhere import Servers
from crash.oracle import Verdict, judge
from crash.program import Life, Nursery, ended, kill

FAR = ("bucket", "far_table", "copied", "inserted", "merged", "items", "items_latest")
BATCH = 20
PATIENCE = 1800.0
"""Seconds after which rows that have not arrived are stuck: a commit to a Delta table in S3 is many requests."""
GIVEN_UP = ("rejected", "rows stay in the spool", "wait in the spool until")
"""What the program says of rows that it does not send again by itself."""


@frozen
class Crossing:
    """How the rows of one pipeline came through."""

    batches: int
    seconds: float
    requests: Mapping[str, int]
    """By fault; `ok` are those that were left alone."""
    verdict: Verdict
    complaints: Sequence[str]
    """Lines of the log that say that something was given up."""

    def faults(self, least: int) -> list[str]:
        """What is wrong; nothing when every row is there once although each fault came so often."""
        seldom = {fault: self.requests.get(fault, 0) for fault in FAULTS if self.requests.get(fault, 0) < least}
        checks = {
            f"faults that came less than {least} times: {seldom}": bool(seldom),
            f"the oracle: {self.verdict}": bool(self.verdict.faults),
            f"given up: {self.complaints[:1]}": bool(self.complaints),
        }
        return [what for what, wrong in checks.items() if wrong]

    def __str__(self) -> str:
        faults = {fault: self.requests.get(fault, 0) for fault in FAULTS}
        asked = f"{sum(self.requests.values())} requests of which {self.requests.get(OK, 0)} went well"
        return f"{self.batches} batches, {self.seconds:.0f} s, {asked}, {faults}; {self.verdict}"


def cross(folder: Path, nursery: Nursery, servers: Servers, sink: str, batches: int, least: int, seed: int = 0) -> Crossing:
    """Deliver so many batches and more, until each fault came at least so often; then some more through a good network."""
    place = servers.place((sink,))
    pipeline.make(folder, (sink,), rows=BATCH)
    pipeline.grow(folder, batches * BATCH)
    began = time.monotonic()
    with FaultProxy(place.address, p=0.5, seed=seed, hang=0.8, retry_after=0) as proxy:
        life = nursery.start(folder, ["run", "pipeline.yaml"], ["impatient:0.05"], **place.known(proxy.url))
        try:
            _until_delivered(folder, life)
            while min(proxy.counts[fault] for fault in FAULTS) < least:  # sinks that ask for little
                pipeline.grow(folder, 5 * BATCH)
                batches += 5
                _until_delivered(folder, life)
            counts, proxy.p = dict(proxy.counts), 0.0
            pipeline.grow(folder, 5 * BATCH)  # what could not be tidied up is, when the network works again
            _until_delivered(folder, life)
        except BaseException:
            kill(life)
            raise
        os.kill(life.pid, 15)
        ended(folder, life, 143)
    log = (folder / "log.txt").read_text()
    complaints = [line for line in log.splitlines() if any(words in line for words in GIVEN_UP)]
    return Crossing(batches, time.monotonic() - began, counts, judge(folder, (sink,), place), complaints)


def _until_delivered(folder: Path, life: Life) -> None:
    """All rows of the sensor are in their sink."""
    with closing(sqlite3.connect(folder / "sensor.db")) as database:
        (rows,) = database.execute("SELECT count(*) FROM readings").fetchone()
    end = time.monotonic() + PATIENCE
    while _delivered(folder) < rows:
        assert life.wait(0) is None, f"the program ended: {(folder / 'log.txt').read_text()[-1500:]}"
        assert time.monotonic() < end, f"waited in vain: {(folder / 'log.txt').read_text()[-1500:]}"
        time.sleep(0.05)


def _delivered(folder: Path) -> int:
    """Rows that the program has noted as delivered."""
    file = folder / ".lakeward" / "crash" / "state.db"
    if not file.exists():
        return 0
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=30)) as database:
        try:
            (rows,) = database.execute("SELECT coalesce(sum(rows), 0) FROM totals WHERE kind = 'delivered'").fetchone()
        except sqlite3.OperationalError:  # the state is being made
            rows = 0
    return int(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=120)
    parser.add_argument("--least", type=int, default=20, help="how often each fault must come")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--sinks", nargs="+", default=FAR, choices=FAR)
    options = parser.parse_args()
    good = True
    with closing(Nursery()) as nursery, closing(Servers()) as servers:
        for sink in options.sinks:
            folder = Path(tempfile.mkdtemp(prefix="lakeward-network-"))
            crossing = cross(folder, nursery, servers, sink, options.batches, options.least, options.seed)
            faults = crossing.faults(options.least)
            print(f"{sink}, seed {options.seed}: {crossing}", *faults, sep="\n    ", flush=True)
            if faults:
                print(f"    look into {folder}", flush=True)
            else:
                shutil.rmtree(folder)
            good = good and not faults
    sys.exit(not good)


if __name__ == "__main__":
    main()
