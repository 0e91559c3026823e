"""A day in half an hour: does anything grow? `python -m crash.soak --minutes 30 --sinks cool,hot`.

A sensor writes 400 rows a second, as eight sensors of one row a second would in fifty times the time. One process of the real program
lives all the while; its memory, file descriptors, state and spool are looked at every two seconds. The Delta sinks compact
their tables themselves. At the end the sensor stops, the spool must run empty, and the oracle judges.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from attrs import frozen

from crash import pipeline
from crash.elsewhere import Place, Servers
from crash.oracle import Verdict, judge
from crash.program import PATIENCE, ended, kill, start
from crash.writer import writing

RATE = 400.0
BATCH = 10_000
EVERY = 2.0
"""Seconds from one look to the next."""
WARM_UP = 1 / 3
"""Share of the time in which memory may still grow: pools fill, caches too."""
ENOUGH = 600.0
"""Seconds after the warm-up from which on a slope tells more than noise."""
MEGABYTE = 1e6
LARGEST_STATE = 16.0  # MB
LARGEST_SLOPE, LARGEST_WITH_DELTA = 1.0, 10.0  # MB an hour
"""delta-rs loads the names of all files of a table at each commit, those that compacting replaced among them."""
STEP_WITH_DELTA = 4.0
"""MB that memory may grow besides: its allocator keeps a little more after an odd commit, so that only long soaks tell a small slope."""


@frozen
class Look:
    """What was there at one moment; sizes in MB."""

    at: float
    """Seconds since the start."""
    memory: float
    """Resident set."""
    handles: int
    threads: int
    state: float
    """state.db with its -wal."""
    spool: float
    sensor_wal: float

    @classmethod
    def now(cls, folder: Path, pid: int, at: float) -> Look:
        told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        state = folder / ".lakeward" / "crash"
        return cls(
            at=at,
            memory=int(told["VmRSS"].split()[0]) * 1024 / MEGABYTE,
            handles=len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208  # they come and go while one looks
            threads=int(told["Threads"]),
            state=_size(state / "state.db") + _size(state / "state.db-wal"),
            spool=sum(map(_size, (state / "spool").glob("*"))),
            sensor_wal=_size(folder / "sensor.db-wal"),
        )


def _size(file: Path) -> float:
    try:
        return file.stat().st_size / MEGABYTE
    except FileNotFoundError:
        return 0.0


@frozen
class Soaked:
    """All looks, and how it ended."""

    looks: Sequence[Look]
    emptied: float
    """Seconds that the spool took to run empty after the sensor stopped."""
    verdict: Verdict
    with_delta: bool = False

    @property
    def warm(self) -> Sequence[Look]:
        """Looks after the warm-up."""
        return [look for look in self.looks if look.at >= WARM_UP * self.looks[-1].at]

    @property
    def slope(self) -> float:
        """Growth of memory after the warm-up, MB an hour."""
        return slope([(look.at, look.memory) for look in self.warm])

    def faults(self) -> list[str]:
        """Which bars it did not clear."""
        warm = self.warm
        handles = [round(value) for _, value in medians([(look.at, float(look.handles)) for look in warm])]
        hours = (warm[-1].at - warm[0].at) / 3600
        slope, step = (LARGEST_WITH_DELTA, STEP_WITH_DELTA) if self.with_delta else (LARGEST_SLOPE, 0.0)
        grown = hours * 3600 >= ENOUGH and hours * self.slope > hours * slope + step
        checks = {
            f"memory grows by {self.slope:.2f} MB an hour": grown,
            f"file descriptors grow from {handles[0]} to {handles[-1]}": handles[-1] > handles[0] + 1,
            f"the state takes {max(look.state for look in self.looks):.1f} MB": max(look.state for look in self.looks) > LARGEST_STATE,
            "the spool does not run empty": self.emptied >= PATIENCE,
            f"the oracle: {self.verdict}": bool(self.verdict.faults),
        }
        return [what for what, wrong in checks.items() if wrong]

    def __str__(self) -> str:
        warm = self.warm
        span = {name: [getattr(look, name) for look in warm] for name in ("memory", "handles", "threads", "state", "spool", "sensor_wal")}
        shown = {name: f"{min(values):.4g}-{max(values):.4g}" for name, values in span.items()}
        verdict = f"spool empty after {self.emptied:.1f} s; {self.verdict}"
        return f"memory {self.slope:+.2f} MB/h; after the warm-up, in MB: {', '.join(f'{k} {v}' for k, v in shown.items())}; {verdict}"


def medians(points: Sequence[tuple[float, float]], parts: int = 20) -> list[tuple[float, float]]:
    """The median of each part of the time: what is resident jumps about with every batch."""
    first, last = points[0][0], points[-1][0]
    buckets: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        buckets.setdefault(min(parts - 1, int(parts * (point[0] - first) / max(last - first, 1e-9))), []).append(point)
    return [(statistics.fmean(at for at, _ in bucket), statistics.median(value for _, value in bucket)) for bucket in buckets.values()]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs of medians, an hour (Theil and Sen): a few odd ones do not move it."""
    steady = medians(points)
    pairs = [(one, other) for index, one in enumerate(steady) for other in steady[index + 1 :]]
    return 3600 * statistics.median((after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs) if pairs else 0.0


def soak(
    folder: Path, seconds: float, sinks: tuple[str, ...] = ("raw", "sums", "cool", "hot"), say: bool = True, place: Place | None = None
) -> Soaked:
    """Let it run for so long; sinks that are elsewhere are at `place`."""
    known = place.known(place.address) if place else {}
    pipeline.make(folder, sinks, rows=BATCH, wait="1s")
    pipeline.grow(folder, 3 * BATCH)  # memory is as large as the largest batch, so the largest comes first
    looks: list[Look] = []
    life = start(folder, ("run", "pipeline.yaml", "--log-level", "warning"), **known)
    try:
        with writing(folder, rate=RATE):
            begin = time.monotonic()
            while (passed := time.monotonic() - begin) < seconds:
                time.sleep(min(EVERY, seconds - passed))
                looks.append(Look.now(folder, life.pid, time.monotonic() - begin))
                if say and len(looks) % round(60 / EVERY) == 0:
                    print(looks[-1], flush=True)
        stopped = time.monotonic()
        while (emptied := time.monotonic() - stopped) < PATIENCE and (emptied < 3 or any((folder / ".lakeward/crash/spool").iterdir())):
            time.sleep(0.1)
        os.kill(life.pid, 15)
        ended(folder, life, 143)
    finally:
        kill(life)
    ended(folder, start(folder, ("run", "pipeline.yaml", "--once", "--finish"), **known))
    return Soaked(looks, emptied, judge(folder, sinks, place), with_delta="use: delta" in (folder / "pipeline.yaml").read_text())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--sinks", default="raw,sums,cool,hot")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lakeward-soak-"))
    sinks = tuple(options.sinks.split(","))
    with closing(Servers()) as servers:
        soaked = soak(folder, 60 * options.minutes, sinks, place=servers.place(sinks))
    print(soaked)
    faults = soaked.faults()
    print(*(f"too much: {fault}" for fault in faults), sep="\n")
    if not faults:
        shutil.rmtree(folder)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
