"""`lakeward sensor run`: simulated sensors that write live into SQLite, to try pipelines without hardware."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen

from lakeward import hookimpl

if TYPE_CHECKING:  # the model loads when it runs: every `lakeward --help` asks this module for its commands
    from lakeward_plugins.ops.sensor_tables import Tables
    from lakeward_plugins.ops.simulator import Fleet, Identity

LAKEWARD_API = (1, 0)
MODES = ("normal", "spike", "trend", "stuck", "missing", "drift")
DEFAULT_RATE = 10.0  # rows/s
SLOWEST = 0.0001  # rows/s: one in three hours
TICK = 0.1  # seconds between commits
LARGEST = 500  # rows in one commit
LATENESS = 0.5  # seconds past the duration to write rows that were due in it
MOST_FILES = 250  # each is three file descriptors; systems commonly allow 1,024
DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|m|h|d)?")
SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
EPILOG = """\b
Examples:
  lakeward sensor run                                        10 rows/s into data/sensor_data.db, until Ctrl-C
  lakeward sensor run --duration 60s --anomalies 0.25        a quarter of the rows is wrong in some way
  lakeward sensor run --rows 1000000 --rate 0 --seed 7       as fast as it can, the same values each time
  lakeward sensor run --rows 5000 --rate 0 --seed 7 --start 2025-01-01T00:00:00Z    the same file each time
  lakeward sensor run --cities London,Paris --sensors 3      data/London/<sensor>/sensor_data.db and so on
  lakeward sensor run --gps track --sensors 5                sensors that move

\b
Unless something is wrong with it (anomaly_flag 1, the kind in anomaly_type), a reading is within
-20..60 degC, 5..95 %, 950..1050 hPa, at most 10 mm/s2, 20..25 V."""


@hookimpl
def lakeward_commands() -> list[click.Command]:
    """`lakeward sensor`."""
    return [sensor]


# -- what may be written on the command line ---------------------------------------------------------------------------


def _number(_: click.Context, parameter: click.Parameter, value: float) -> float:
    if math.isnan(value):  # a range lets it through
        raise click.BadParameter("nan is no number")
    if parameter.name == "rate" and 0 < value < SLOWEST:
        raise click.BadParameter(f"{value} is slower than {SLOWEST} rows a second; 0 is as fast as it can")
    return value


def _duration(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    match = DURATION.fullmatch(value.strip())
    if not match or float(match[1]) == 0:
        raise click.BadParameter(f"{value!r} is no duration; write 90s, 500ms, 10m or 1h")
    return float(match[1]) * SECONDS[match[2]]


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no ISO 8601 time; write it as 2025-01-01T00:00:00Z") from error
    if not 1970 <= moment.year < 2200:
        raise click.BadParameter(f"the year {moment.year} is out of range; 1970 to 2199 are possible")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _kinds(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """The kinds of anomalies; `normal` is there for those who want none."""
    names = _words(value)
    for name in names:
        if name not in MODES:
            guess = get_close_matches(name, MODES, 1)
            hint = f", did you mean {guess[0]!r}?" if guess else f"; there are {', '.join(MODES)}"
            raise click.BadParameter(f"there is no mode {name!r}{hint}")
    return tuple(name for name in names if name != "normal")


def _cities(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = _words(value) if value is not None else []
    for name in names:
        if name.startswith(".") or not name.isprintable() or re.search(r"[/\\:]", name):
            raise click.BadParameter(f"{name!r} cannot be the name of a folder")
    if value is not None and not names:
        raise click.BadParameter("no city in it; write London,Paris")
    return tuple(names)


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(filter(None, (word.strip() for word in text.split(",")))))


# -- the commands ------------------------------------------------------------------------------------------------------


@click.group(short_help="Run simulated sensors.")
def sensor() -> None:
    """Simulated sensors, to try pipelines without hardware."""


@sensor.command(short_help="Write simulated readings into SQLite.", epilog=EPILOG)
@click.option("--db", type=click.Path(path_type=Path, dir_okay=False), help="The database [default: data/sensor_data.db].")
@click.option("--rate", type=click.FloatRange(0, 1_000_000), default=DEFAULT_RATE, show_default=True, callback=_number, metavar="N",
              help="Rows a second, of all sensors together; 0 is as fast as it can.")  # fmt: skip
@click.option("--duration", callback=_duration, metavar="TIME", help="End after so long, such as 60s or 10m.")
@click.option("--rows", type=click.IntRange(min=1), metavar="N", help="End after so many rows.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The same seed gives the same values [default: another each time].")
@click.option("--start", callback=_moment, metavar="ISO", help="Time of the first reading; the rate gives the others [default: the clock].")
@click.option("--anomalies", type=click.FloatRange(0, 1), default=0.0, show_default=True, callback=_number, metavar="SHARE",
              help="Share of readings with something wrong.")  # fmt: skip
@click.option("--modes", callback=_kinds, default=",".join(MODES), show_default=True, metavar="LIST", help="What can go wrong.")
@click.option("--sensors", type=click.IntRange(1, 100_000), default=1, show_default=True, metavar="N",
              help="How many sensors; with --cities, in each city.")  # fmt: skip
@click.option(
    "--gps", type=click.Choice(["fixed", "track"]), default="fixed", show_default=True, help="Sensors stand still, or walk about."
)
@click.option("--cities", callback=_cities, metavar="LIST", help="Sensors in these cities, each with a file of its own below --root.")
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), help="With --cities: the folder for them [default: data].")
@click.option("--fresh", is_flag=True, help="Start with empty files; otherwise rows are added to what is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def run(as_json: bool, **options: Any) -> None:
    """Write readings as sensors do: live, in small transactions, into table sensor_readings of a SQLite file in WAL mode.

    SIGTERM and Ctrl-C end it in good order: what is in hand is committed.
    """
    settings = Settings(**options)
    identities = _identities(settings)
    seed = int.from_bytes(os.urandom(4), "big") if settings.seed is None else settings.seed
    fleet = _fleet(settings, identities, seed)
    databases = list(dict.fromkeys(one.database for one in identities))
    signals: list[int] = []
    with _opened(databases, settings) as tables, _listening(signals):
        click.echo(f"writing to {_named(databases)}; Ctrl-C ends it", err=True)
        began = time.monotonic()
        with _progress(settings.total) as show:
            _play(fleet, tables, settings, signals, show)
        seconds = time.monotonic() - began
    click.echo(_summary(fleet, seconds, databases), err=True)
    if as_json:
        paths = [str(path) for path in databases]
        result = {"rows": fleet.read, "anomalies": dict(fleet.anomalies), "databases": paths, "seed": seed, "seconds": round(seconds, 3)}
        click.echo(json.dumps(result, indent=2))
    if signals:
        sys.exit(128 + signals[0])


@frozen(kw_only=True)
class Settings:
    """What the command line says, and what follows from it."""

    db: Path | None
    rate: float
    duration: float | None
    rows: int | None
    seed: int | None
    start: datetime | None
    anomalies: float
    modes: tuple[str, ...]
    sensors: int
    gps: str
    cities: tuple[str, ...]
    root: Path | None
    fresh: bool

    def __attrs_post_init__(self) -> None:
        if self.cities and self.db:
            raise click.UsageError("--db is for one database; with --cities, give --root")
        if self.root and not self.cities:
            raise click.UsageError("--root is where the files of --cities go; without cities, give --db")
        if self.anomalies and not self.modes:
            raise click.UsageError("--modes normal leaves nothing that can go wrong; leave out --anomalies, or name more modes")
        if len(self.cities) * self.sensors > MOST_FILES:
            raise click.UsageError(f"{len(self.cities)} x {self.sensors} sensors with a file each are too many; {MOST_FILES} are possible")

    @property
    def total(self) -> float:
        """Rows to write; infinite without an end, and when only the time ends it."""
        timed = max(1, round(self.duration * self.rate)) if self.duration and self.rate else math.inf
        return min(timed, self.rows or math.inf)

    @property
    def deadline(self) -> float:
        """Seconds until it ends, rows or not."""
        return math.inf if self.duration is None else self.duration + (LATENESS if self.rate else 0.0)

    @property
    def gap(self) -> float:
        """Seconds from one reading to the next."""
        return 1 / (self.rate or DEFAULT_RATE)


# -- running -----------------------------------------------------------------------------------------------------------


def _play(fleet: Fleet, tables: Tables, settings: Settings, signals: Sequence[int], show: Callable[[int], None]) -> None:
    """Write what is due, tick by tick, until the end or a signal."""
    stamp = _stamps(settings)
    began = time.monotonic()
    while not signals and fleet.read < settings.total and (elapsed := time.monotonic() - began) < settings.deadline:
        due = min(settings.total, int(elapsed * settings.rate) + 1 if settings.rate else math.inf) - fleet.read
        if due >= 1:
            count = int(min(due, LARGEST))
            tables.write(fleet.readings(count, stamp))
            show(count)
        if due <= LARGEST:
            last = (settings.total - 1) * settings.gap - elapsed  # it is not worth a tick of its own
            time.sleep(max(0.001, min(TICK, last)))


def _stamps(settings: Settings) -> Callable[[int], str]:
    """From the number of a reading to its time: when it is due; the clock when they come as fast as they can."""
    if settings.start is None and not settings.rate:
        return lambda _: datetime.now(UTC).isoformat(timespec="microseconds")
    first, gap = settings.start or datetime.now(UTC), settings.gap
    return lambda number: (first + timedelta(seconds=number * gap)).isoformat(timespec="microseconds")


def _identities(settings: Settings) -> list[Identity]:
    from lakeward_plugins.ops.simulator import sensor_in_city, sensor_in_plant

    numbers = range(1, settings.sensors + 1)
    if settings.cities:
        root = settings.root or Path("data")
        return [sensor_in_city(city, number, root) for number in numbers for city in settings.cities]
    return [sensor_in_plant(number, settings.db or Path("data/sensor_data.db")) for number in numbers]


def _fleet(settings: Settings, identities: Sequence[Identity], seed: int) -> Fleet:
    from lakeward_plugins.ops.simulator import Fleet

    moves_every = settings.gap * len(identities) if settings.gps == "track" else None
    return Fleet(identities, seed, settings.modes, settings.anomalies, moves_every)


@contextmanager
def _opened(databases: Sequence[Path], settings: Settings) -> Iterator[Tables]:
    from lakeward_plugins.ops.sensor_tables import Tables

    try:
        tables = Tables(databases, fresh=settings.fresh)
    except (OSError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="--root" if settings.cities else "--db") from error
    with closing(tables):
        yield tables


@contextmanager
def _listening(signals: list[int]) -> Iterator[None]:
    """Signals that ask to stop are put into the list; the second one stops at once."""

    def stop(number: int, _: FrameType | None) -> None:
        if signals:
            os._exit(128 + number)
        signals.append(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(total: float) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    endless = iter(int, 1) if total == math.inf else None
    with click.progressbar(endless, None if endless else int(total), "rows", show_pos=True, file=sys.stderr) as bar:
        yield bar.update


def _summary(fleet: Fleet, seconds: float, databases: Sequence[Path]) -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(fleet.anomalies.items()))
    anomalies = f"{fleet.anomalies.total():,} anomalies" + (f" ({kinds})" if kinds else "")
    return f"{fleet.read:,} rows in {seconds:.1f} s, {anomalies}, written to {_named(databases)}"


def _named(databases: Sequence[Path]) -> str:
    return str(databases[0]) if len(databases) == 1 else f"{len(databases)} databases in {os.path.commonpath(databases)}"
