"""Kill the real program again and again while a sensor writes: `python -m crash.storm --kills 1000 --seed 7`.

Several pipelines live one after the other, so that a failure can be repeated with the seed of its own life. In each, some runs go on
until they are killed and some are `--once`; most are killed after a random part of the time that a run takes, some at a named point.
At the end the sensor stops, a last run delivers everything, the oracle judges, and one more run must change nothing.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from attrs import define, field, frozen

from crash import pipeline
from crash.oracle import Verdict, judge, photograph
from crash.points import POINTS
from crash.program import Broken, Nursery, Over, ended, kill, start
from crash.writer import writing

KILLED = -9
AT_A_POINT = 0.4
"""Share of the kills at a named point rather than at any moment."""
RATE = 200.0
"""Rows that the sensor writes in a second; runs must be able to catch up with it."""
AS_PEOPLE_DO = 0.1
"""Share of the runs that start a new interpreter: nine tenths of their life is the start."""


@frozen
class Weather:
    """What differs from life to life."""

    seed: int
    kills: int
    journal: str
    batch: int
    sinks: tuple[str, ...]
    plant: str = ""

    @property
    def bugs(self) -> list[str]:
        """What to patch into every run."""
        return [f"plant:{self.plant}"] if self.plant else []

    @classmethod
    def of(cls, seed: int, kills: int, plant: str = "") -> Weather:
        luck = random.Random(seed)
        sinks: tuple[str, ...] = (
            ("raw", "sums", "table", "documents"),
            ("raw", "sums", "cool", "hot"),
            ("archive", "sums", "cool", "hot"),
        )[seed % 3]
        if plant == "random_document_id":
            sinks = ("raw", "sums", "table", "documents")
        return cls(seed, kills, "delete" if seed % 4 == 1 else "wal", luck.choice((100, 300, 5000)), sinks, plant)


@define
class Tally:
    """What happened in one life or in many."""

    kills: Counter[str] = field(factory=Counter)
    """By how the run was started and where it was killed."""
    faults: Counter[tuple[str, str]] = field(factory=Counter)
    rows: int = 0
    windows: int = 0
    unstable: int = 0
    """Lives in which one more run changed something."""
    broken: list[str] = field(factory=list)
    """Runs that ended as they never should."""

    def add(self, other: Tally) -> None:
        self.kills += other.kills
        self.faults += other.faults
        self.rows, self.windows, self.unstable = self.rows + other.rows, self.windows + other.windows, self.unstable + other.unstable
        self.broken += other.broken

    def judged(self, verdict: Verdict) -> None:
        self.faults, self.rows, self.windows = verdict.faults, verdict.rows, verdict.windows

    @property
    def exact(self) -> bool:
        return not (self.faults or self.unstable or self.broken)

    def __str__(self) -> str:
        kinds: Counter[str] = Counter()
        for (sink, kind), count in self.faults.items():
            kinds[f"windows {kind}" if sink == "sums" else kind] += count
        names = ("lost", "twice", "wrong", "unreadable", "left", "windows lost", "windows twice", "windows wrong", "windows unreadable")
        told = {"kills": self.kills.total(), "rows": self.rows, "windows": self.windows} | {name: kinds[name] for name in names}
        told |= {"changed by one more run": self.unstable, "broken": len(self.broken)}
        return " ".join(f"{name.replace(' ', '-')}={count}" for name, count in told.items())


def live(folder: Path, nursery: Nursery, weather: Weather) -> Tally:
    """One pipeline from its first kill to its judgement."""
    luck, tally, bugs = random.Random(weather.seed), Tally(), weather.bugs
    pipeline.make(folder, weather.sinks, weather.batch)
    try:
        pipeline.grow(folder, 500)
        span = _span(folder, nursery, bugs)
        pipeline.connect(folder / "sensor.db", weather.journal).close()  # while nobody reads: SQLite does not wait to change it
        with writing(folder, weather.journal, weather.seed, RATE):
            for _ in range(10 * weather.kills):
                if tally.kills.total() >= weather.kills:
                    break
                if how := _one_run(folder, nursery, luck, weather, span):
                    tally.kills[how] += 1
        _settle(folder, nursery, bugs)
        tally.judged(judge(folder, weather.sinks))
        before = photograph(folder)
        _settle(folder, nursery, bugs)
        tally.unstable = int(photograph(folder) != before)
    except Broken as broken:
        tally.broken.append(str(broken))
    return tally


def _span(folder: Path, nursery: Nursery, bugs: list[str]) -> float:
    """Seconds that a forked run takes."""
    begin = time.monotonic()
    ended(folder, nursery.start(folder, ["run", "pipeline.yaml", "--once"], bugs))
    return time.monotonic() - begin


def _one_run(folder: Path, nursery: Nursery, luck: random.Random, weather: Weather, span: float) -> str:
    """Start, kill, and say how; nothing when the run was over first."""
    arguments = ["run", "pipeline.yaml", *(["--once"] if luck.random() < 0.5 else [])]
    unpatched = not weather.plant and "documents" not in weather.sinks  # which only patched runs know
    if luck.random() < AS_PEOPLE_DO and unpatched:
        life, how, delay = start(folder, arguments), "started", luck.uniform(0, 4 * span)
    elif luck.random() < AT_A_POINT:
        point, visit = luck.choice(POINTS), luck.randint(1, 6)
        life, how, delay = nursery.start(folder, arguments, [*weather.bugs, f"die:{point}:{visit}"]), "at a point", 3 * span
    else:
        life, how, delay = nursery.start(folder, arguments, weather.bugs), "at random", luck.uniform(0, luck.choice((1, 3)) * span)
    status = life.wait(delay)
    if status is None:
        status = kill(life)
        how = "at random" if how == "at a point" else how  # it did not come there that often
    if status not in (0, KILLED):
        ended(folder, Over(status))
    return how if status == KILLED else ""


def _settle(folder: Path, nursery: Nursery, bugs: list[str]) -> None:
    ended(folder, nursery.start(folder, ["run", "pipeline.yaml", "--once", "--finish"], bugs))


def storm(kills: int, seed: int, each: int = 50, plant: str = "", say: bool = True) -> Tally:
    """Lives of `each` kills, one after the other; the folder of one that failed stays."""
    total = Tally()
    with closing(Nursery()) as nursery:
        for number in range(-(-kills // each)):
            weather = Weather.of(seed + number, min(each, kills - number * each), plant)
            folder = Path(tempfile.mkdtemp(prefix="lakeward-crash-"))
            begin = time.monotonic()
            tally = live(folder, nursery, weather)
            total.add(tally)
            if say:
                what = f"seed {weather.seed}: journal {weather.journal}, batch {weather.batch}, {', '.join(weather.sinks)}"
                print(f"{what}; {time.monotonic() - begin:.0f} s: {tally}", *tally.broken, sep="\n    ", flush=True)
                if not tally.exact:
                    print(f"    {dict(tally.faults)}; look into {folder}", flush=True)
            if tally.exact or plant:
                shutil.rmtree(folder)
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--each", type=int, default=50, help="kills in one life of a pipeline")
    parser.add_argument("--plant", default="", help="a bug of crash.planted to switch on: the storm must see it")
    options = parser.parse_args()
    begin = time.monotonic()
    total = storm(options.kills, options.seed, options.each, options.plant)
    print(f"{dict(total.kills)} in {time.monotonic() - begin:.0f} s, seed {options.seed}")
    print(total)
    sys.exit(total.exact == bool(options.plant))


if __name__ == "__main__":
    main()
