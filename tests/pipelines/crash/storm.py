"""Kill the real program again and again while a sensor writes: `python -m crash.storm --kills 1000 --seed 7`.

`--of s3` does so with the sinks of one kind, `--of each` with those of one kind after the other. Several pipelines live one after the
other, so that a failure can be repeated with the seed of its own life. In each, some runs go on until they are killed and some are
`--once`; most are killed after a random part of the time that a run takes, some at a named point. At the end the sensor stops, a last
run delivers everything, the oracle judges, and one more run must change nothing. Between the program and a sink that is elsewhere there
is a network that spoils some of the requests, until the last run.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from attrs import define, field, frozen
from faultproxy import FaultProxy

from crash import pipeline
from crash.elsewhere import Place, Servers
from crash.oracle import Verdict, judge, photograph
from crash.points import POINTS
from crash.program import Broken, Nursery, Over, ended, kill, start
from crash.writer import writing

KILLED = -9
AT_A_POINT = 0.4
"""Share of the kills at a named point rather than at any moment."""
RATE, RATE_OF_FAR = 200.0, 40.0
"""Rows that the sensor writes in a second at most, and never more than two batches: runs must be able to catch up with it."""
AS_PEOPLE_DO = 0.1
"""Share of the runs that start a new interpreter: nine tenths of their life is the start."""
SPOILED = 0.1
"""Share of the requests to sinks elsewhere that the network spoils."""
KINDS: dict[str, tuple[str, ...]] = {
    "parquet": ("raw",),
    "delta": ("table", "table_latest"),
    "archive": ("archive",),
    "sqlite": ("local", "local_latest"),
    "duckdb": ("duck", "duck_latest"),
    "s3": ("bucket",),
    "delta in s3": ("far_table",),
    "databricks": ("copied", "inserted", "merged"),
    "cosmos": ("items", "items_latest"),
}
MIXED = (("raw", "sums", "table", "documents"), ("raw", "sums", "cool", "hot"), ("archive", "sums", "cool", "hot"))


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
    def of(cls, seed: int, kills: int, plant: str = "", kind: str = "") -> Weather:
        sinks = KINDS[kind] if kind else MIXED[0 if plant == "random_document_id" else seed % 3]
        batch = random.Random(seed).choice((20, 60) if kind else (100, 300, 5000))
        return cls(seed, kills, "delete" if seed % 4 == 1 else "wal", batch, sinks, plant)


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


@frozen
class Pipe:
    """One pipeline, which is started and killed."""

    folder: Path
    nursery: Nursery
    weather: Weather
    place: Place

    def live(self) -> Tally:
        """From its first kill to its judgement."""
        folder, weather, tally, luck = self.folder, self.weather, Tally(), random.Random(self.weather.seed)
        pipeline.make(folder, weather.sinks, weather.batch)
        try:
            pipeline.grow(folder, min(5 * weather.batch, 500))
            span = self._span()
            pipeline.connect(folder / "sensor.db", weather.journal).close()  # while nobody reads: SQLite does not wait to change it
            rate = min(2.0 * weather.batch, RATE_OF_FAR if self.place.address else RATE)
            with self._network() as network:
                address = network.url if network else ""
                with writing(folder, weather.journal, weather.seed, rate):
                    for _ in range(10 * weather.kills):
                        if tally.kills.total() >= weather.kills:
                            break
                        if how := self._one_run(luck, span, address):
                            tally.kills[how] += 1
                if network:  # what is in doubt is looked for at the address where it was sent, so it is settled before that is gone
                    network.p = 0.0
                    pipeline.grow(folder, 1, journal=weather.journal)  # files that could not be removed go with the next parcel
                    self._settle("--once", address=address)
            self._settle()
            tally.judged(judge(folder, weather.sinks, self.place))
            before = self._photograph()
            self._settle()
            tally.unstable = int(self._photograph() != before)
        except Broken as broken:
            tally.broken.append(str(broken))
        return tally

    @contextmanager
    def _network(self) -> Iterator[FaultProxy | None]:
        """In front of a sink that is elsewhere."""
        if not self.place.address:
            yield None
            return
        with FaultProxy(self.place.address, p=SPOILED, seed=self.weather.seed, hang=0.8, retry_after=0) as proxy:
            yield proxy

    def _one_run(self, luck: random.Random, span: float, address: str) -> str:
        """Start, kill, and say how; nothing when the run was over first."""
        weather, known = self.weather, self.place.known(address)
        once = luck.random() < 0.5 and not address  # which would give up when the network is bad
        arguments = ["run", "pipeline.yaml", *(["--once"] if once else [])]
        patches = [*weather.bugs, *(["impatient:0.05"] if address else [])]
        unpatched = not weather.plant and "documents" not in weather.sinks  # which only patched runs know
        if luck.random() < AS_PEOPLE_DO and unpatched:
            life, how, delay = start(self.folder, arguments, **known), "started", luck.uniform(0, 4 * span)
        elif luck.random() < AT_A_POINT:
            point, visit = luck.choice(POINTS), luck.randint(1, 6)
            patches.append(f"die:{point}:{visit}")
            life, how, delay = self.nursery.start(self.folder, arguments, patches, **known), "at a point", 3 * span
        else:
            delay = luck.uniform(0, luck.choice((1, 3)) * span)
            life, how = self.nursery.start(self.folder, arguments, patches, **known), "at random"
        status = life.wait(delay)
        if status is None:
            status = kill(life)
            how = "at random" if how == "at a point" else how  # it did not come there that often
        if status not in (0, KILLED):
            ended(self.folder, Over(status))
        return how if status == KILLED else ""

    def _span(self) -> float:
        """Seconds that a forked run takes, at most one, as there is always more to do."""
        begin = time.monotonic()
        self._settle("--once")
        return min(time.monotonic() - begin, 1.0)

    def _settle(self, *how: str, address: str = "") -> None:
        """Deliver everything, through a good network."""
        arguments, known = ["run", "pipeline.yaml", *(how or ("--once", "--finish"))], self.place.known(address or self.place.address)
        ended(self.folder, self.nursery.start(self.folder, arguments, self.weather.bugs, **known))

    def _photograph(self) -> dict[str, str]:
        return photograph(self.folder, self.weather.sinks, self.place)


def storm(
    kills: int, seed: int, each: int = 50, plant: str = "", say: bool = True, kind: str = "", servers: Servers | None = None
) -> Tally:
    """Lives of `each` kills, one after the other; the folder of one that failed stays. `servers` of the caller stay as well."""
    total = Tally()
    with closing(Nursery()) as nursery, closing(Servers()) as ours:
        for number in range(-(-kills // each)):
            weather = Weather.of(seed + number, min(each, kills - number * each), plant, kind)
            folder = Path(tempfile.mkdtemp(prefix="lakeward-crash-"))
            begin = time.monotonic()
            tally = Pipe(folder, nursery, weather, (servers or ours).place(weather.sinks)).live()
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
    parser.add_argument("--life", type=int, default=50, help="kills in one life of a pipeline")
    parser.add_argument("--plant", default="", help="a bug of crash.planted to switch on: the storm must see it")
    parser.add_argument("--of", default="", choices=("", *KINDS, "each"), help="sinks of this kind alone, or of each kind so many kills")
    options = parser.parse_args()
    good = True
    for kind in KINDS if options.of == "each" else (options.of,):
        begin = time.monotonic()
        total = storm(options.kills, options.seed, options.life, options.plant, kind=kind)
        print(f"{kind or 'mixed'}: {dict(total.kills)} in {time.monotonic() - begin:.0f} s, seed {options.seed}")
        print(total, flush=True)
        good = good and total.exact
    sys.exit(good == bool(options.plant))


if __name__ == "__main__":
    main()
