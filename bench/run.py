"""Measure lakeward beside others, and write what was found into RESULTS.md and results.png beside this file: `make bench`.

    python bench/run.py [ROWS]

lakeward must be installed where this runs. Each of the others gets a virtual environment of its own in build/bench, from the pins in
peers/. All move the same table from SQLite to Parquet files and take turns, so that a busy machine is unfair to all; whole processes
are counted, and what they wrote is checked before a figure is believed. With ROWS only so many rows are moved instead of 1M and 5M.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from cost import ENVIRONMENT, Cost, cost, cost_of_waiting
from report import Measured, Small, write

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "bench"
OURS = Path(sys.executable).parent
MILLION = 1_000_000
PIPELINE = """name: bench
source: {use: sqlite, path: sensor.db}
sinks: {lake: {use: parquet, path: out}}
"""


@dataclass(frozen=True)
class Contender:
    """One way to move the table."""

    name: str
    environment: str
    """Of which its Python is; empty for ours."""
    script: str
    """In peers/; empty for lakeward itself."""
    arguments: tuple[str, ...] = ()
    rounds: int = 5
    rounds_of_more: int = 0
    """With more than a million rows."""

    def command(self, database: Path, out: Path) -> list[str]:
        """To be run in the folder that holds both."""
        if not self.script:
            return [str(OURS / "lakeward"), "run", "bench.yaml", "--once", "--log-level", "warning"]
        python = BUILD / self.environment / "bin" / "python" if self.environment else sys.executable
        return [str(python), str(HERE / "peers" / self.script), str(database), str(out), *self.arguments]


LAKEWARD = Contender("lakeward", "", "", rounds=7, rounds_of_more=3)
PLAIN = Contender("plain ADBC loop, no checks", "", "plain.py", rounds=7, rounds_of_more=3)
CONTENDERS = (
    LAKEWARD,
    PLAIN,
    Contender("DuckDB, one COPY", "duckdb", "duckdb_copy.py", rounds=7, rounds_of_more=3),
    Contender("dlt, connectorx", "dlt", "dlt_load.py", ("connectorx",)),
    Contender("pandas, 500 rows at a time", "pandas", "pandas_500.py"),
    Contender("dlt, its default (sqlalchemy)", "dlt", "dlt_load.py", ("sqlalchemy",), rounds=1),
)


def main(sizes: tuple[int, ...]) -> None:
    """Measure all, tell all."""
    for name in {one.environment for one in CONTENDERS} - {""}:
        install(name)
    tables = {rows: move(rows) for rows in sizes}
    small = Small(*idle(), *small_batches(), waiting())
    plotted = {one.name: [cost.cpu * MILLION / rows for cost in one.costs] for rows in sizes[:1] for one in tables[rows]}
    draw = [str(BUILD / "pandas" / "bin" / "python"), str(HERE / "plot.py"), str(HERE / "results.png")]
    subprocess.run(draw, input=json.dumps(plotted), text=True, check=True)
    write(HERE / "RESULTS.md", tables, small)


def install(name: str) -> None:
    """An environment with the pins of a peer, made anew when they changed."""
    pins, ready = HERE / "peers" / f"{name}.txt", BUILD / name / "ready"
    if ready.exists() and ready.read_text() == pins.read_text():
        return
    venv.create(BUILD / name, clear=True, with_pip=True)
    pip = [str(BUILD / name / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(pins)]
    subprocess.run(pip, check=True, env=ENVIRONMENT)
    ready.write_text(pins.read_text())


# -- many rows ---------------------------------------------------------------------------------------------------------


def move(rows: int) -> list[Measured]:
    """All contenders in turns; the first turn of each is checked."""
    folder = prepared(str(rows), rows)
    measured = [Measured(one.name, one.rounds if rows <= MILLION else one.rounds_of_more) for one in CONTENDERS]
    for turn in range(max(one.rounds for one in measured)):
        for contender, found in zip(CONTENDERS, measured, strict=True):
            if turn >= found.rounds:
                continue
            out = emptied(folder)
            found.costs.append(cost(contender.command(folder / "sensor.db", out), folder))
            say(f"{rows:,} rows, turn {turn + 1}, {contender.name}", found.costs[-1])
            files = [file for file in out.rglob("*.parquet") if "state" not in file.parts]  # there, dlt keeps copies
            found.out_mb = sum(file.stat().st_size for file in files) / 1e6
            if not turn:
                database("check", folder / "sensor.db", *files)
    return [one for one in measured if one.costs]


def prepared(name: str, rows: int) -> Path:
    """A folder with a database and our pipeline."""
    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    database("make", folder / "sensor.db", rows)
    (folder / "bench.yaml").write_text(PIPELINE)
    return folder


def database(*arguments: object) -> None:
    """In a process of its own: what this one takes would count as the peak memory of all that it starts."""
    if subprocess.run([sys.executable, str(HERE / "database.py"), *map(str, arguments)], env=ENVIRONMENT).returncode:
        sys.exit(1)


def emptied(folder: Path) -> Path:
    """The folder `out`, without what an earlier turn left."""
    for name in ("out", ".lakeward"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "out").mkdir()
    return folder / "out"


def say(what: str, found: Cost) -> None:
    """Progress, for a person who waits."""
    print(f"{what}: {found.cpu:.2f} s CPU, {found.wall:.2f} s, {found.peak_mb:.0f} MB", flush=True)


# -- few rows ----------------------------------------------------------------------------------------------------------


def idle(rounds: int = 11) -> tuple[list[Cost], list[Cost], list[Cost]]:
    """A run when nothing is new, `lakeward --help`, and what the libraries alone take, in turns."""
    folder = prepared("idle", 1000)
    emptied(folder)
    run = LAKEWARD.command(folder / "sensor.db", folder / "out")
    libraries = "import attrs, cattrs, click, pluggy, yaml, sqlite3, hashlib, importlib.metadata, adbc_driver_sqlite, adbc_driver_manager"
    floor = [sys.executable, "-c", f"{libraries}, pyarrow"]
    cost(run, folder)  # takes the rows
    turns = [[cost(command, folder) for command in (run, [run[0], "--help"], floor)] for _ in range(rounds)]
    runs, helps, floors = (list(costs) for costs in zip(*turns, strict=True))
    say("nothing new", runs[0])
    return runs, helps, floors


def small_batches(rows: int = 100_000, rounds: int = 3) -> tuple[int, list[Cost]]:
    """Batches of 1,000 rows."""
    folder = prepared("small", rows)
    costs = []
    for _ in range(rounds):
        command = LAKEWARD.command(folder / "sensor.db", emptied(folder))
        costs.append(cost([*command, "--set", "batch.rows=1000"], folder))
        say(f"{rows:,} rows in batches of 1,000", costs[-1])
    return rows, costs


def waiting(seconds: int = 60) -> float:
    """The share of one core that goes on when one row a second comes and each second is looked."""
    shutil.rmtree(BUILD / "waiting", ignore_errors=True)
    folder = prepared("waiting", 1000)
    run = [str(OURS / "lakeward"), "run", "bench.yaml", "--set", "batch.wait=1s", "--log-level", "warning"]
    share = cost_of_waiting(run, folder, folder / "sensor.db", seconds)
    print(f"one row a second: {share:.1%} of a core", flush=True)
    return share


if __name__ == "__main__":
    main((int(sys.argv[1]),) if sys.argv[1:] else (MILLION, 5 * MILLION))
