"""Cut the power at any moment, on paper: `python -m crash.powercut --cuts 150 --seed 7`.

A run that goes on beside a live sensor is traced. For each cut the disk is rebuilt as it could look then, all that was not synced being
kept, dropped or torn by chance; the sensor writes on; the real program is started on what is left, and the oracle judges. The sensor has
to write on: with the same rows, a batch that is read again is the same by luck, and forgetting it does no harm.
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
from contextlib import closing
from pathlib import Path

from attrs import define, field

from crash import pipeline
from crash.disk import Disk
from crash.oracle import judge, photograph
from crash.program import Broken, Nursery, ended
from crash.trace import STRACE, Event, record
from crash.writer import writing

PARQUET, WITH_DELTA = ("raw", "sums"), ("raw", "sums", "table")
FINISH = ("run", "pipeline.yaml", "--once", "--finish")
REFUSALS = ("was cut short, probably by a power cut", "if the power was cut, look whether")
"""How the Delta sink refuses a table that lost what delta-rs had not synced."""


@define
class Cuts:
    """What came of them."""

    exact: int = 0
    refused: int = 0
    """Loud: the Delta sink named the file that was cut short; all other sinks were exact."""
    wrong: list[str] = field(factory=list)
    """Rows lost, twice or wrong, or a run that ended as it never should."""

    def __str__(self) -> str:
        return f"cuts={self.exact + self.refused + len(self.wrong)} exact={self.exact} refused={self.refused} wrong={len(self.wrong)}"


def traced(folder: Path, sinks: tuple[str, ...], patches: tuple[str, ...] = (), seconds: float = 3.0, seed: int = 0) -> list[Event]:
    """A run of some seconds beside a live sensor."""
    pipeline.make(folder, sinks, rows=60)
    with writing(folder, "wal", seed, rate=300.0):
        events = record(folder, ("run", "pipeline.yaml"), patches, seconds)
    # shared memory is made anew after a power cut
    return [event for event in events if not event.path.endswith("-shm") and not event.path.startswith(f"{folder}/sensor")]


def cut(folder: Path, events: list[Event], count: int, seed: int, sinks: tuple[str, ...], nursery: Nursery) -> Cuts:
    """Cut a traced run so many times, and see what the program makes of what is left."""
    cuts = Cuts()
    before = folder.rename(folder.with_name(f"{folder.name}-before"))  # the state knows the places of sinks: what is left must lie there
    try:
        for number, left in enumerate(_disks(folder, events, count, random.Random(seed))):
            _rebuild(before, folder, left)
            _judge(folder, sinks, nursery, cuts, f"seed {seed}, cut {number}")
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        before.rename(folder)
    return cuts


def _disks(folder: Path, events: list[Event], count: int, luck: random.Random) -> Iterator[dict[str, bytes | None]]:
    moments, disk = Counter(luck.choices(range(1, len(events) + 1), k=count)), Disk(str(folder))
    for moment, event in enumerate(events, 1):
        disk.do(event)
        for _ in range(moments[moment]):
            yield disk.after_cut(luck)


def _rebuild(before: Path, folder: Path, left: dict[str, bytes | None]) -> None:
    """What is left, beside a sensor's database with all rows of the traced run, and then some more."""
    folder.mkdir()
    for path, content in sorted(left.items()):  # folders before what is in them
        if content is None:
            Path(path).mkdir()
        else:
            Path(path).write_bytes(content)
    for name in ("pipeline.yaml", "sensor.db"):
        shutil.copy(before / name, folder)
    pipeline.grow(folder, 150)


def _judge(folder: Path, sinks: tuple[str, ...], nursery: Nursery, cuts: Cuts, which: str) -> None:
    try:
        status = ended(folder, nursery.start(folder, FINISH), 0, 1)
        log = (folder / "log.txt").read_text()
        refused = status == 1 and any(words in log for words in REFUSALS)
        if status and not refused:
            cuts.wrong.append(f"{which}: {log[-600:]}")
            return
        judged = tuple(sink for sink in sinks if sink != "table") if refused else sinks
        verdict = judge(folder, judged)
        faults = {fault: count for fault, count in verdict.faults.items() if not (refused and fault == ("spool", "left"))}
        before = photograph(folder)
        ended(folder, nursery.start(folder, FINISH), status)
        if faults or photograph(folder) != before:
            cuts.wrong.append(f"{which}: {verdict}{'' if faults else '; one more run changed something'}")
        elif refused:
            cuts.refused += 1
        else:
            cuts.exact += 1
    except Broken as broken:
        cuts.wrong.append(f"{which}: {broken}")


def cut_all(count: int, seed: int, sinks: tuple[str, ...], patches: tuple[str, ...] = (), seconds: float = 3.0) -> Cuts:
    """Trace once and cut."""
    folder = Path(tempfile.mkdtemp(prefix="lakeward-powercut-"))
    try:
        events = traced(folder, sinks, patches, seconds, seed)
        with closing(Nursery()) as nursery:
            return cut(folder, events, count, seed, sinks, nursery)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=150)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--patch", action="append", default=[], help="such as careless:files: the cuts must then go wrong")
    options = parser.parse_args()
    if not STRACE:
        sys.exit("no power cuts: strace is not installed; on Debian: apt-get install strace")
    failed = False
    for name, sinks in (("Parquet", PARQUET), ("Parquet and Delta", WITH_DELTA)):
        begin = time.monotonic()
        cuts = cut_all(options.cuts, options.seed, sinks, tuple(options.patch))
        failed |= bool(cuts.wrong)
        print(
            f"power cuts, {name}, seed {options.seed}, {time.monotonic() - begin:.0f} s: {cuts}", *cuts.wrong[:5], sep="\n    ", flush=True
        )
    sys.exit(failed != bool(options.patch))


if __name__ == "__main__":
    main()
