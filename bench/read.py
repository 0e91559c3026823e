"""A million rows from SQLite to Parquet, beside the plainest loop that does it; and what it costs when nothing is new.

    python bench/read.py [folder, build/bench] [rows, 1000000]

Needs lakeward installed and some 500 MB in the folder. The database is made once, by the simulator. Runs of the two take turns, so that
a busy machine is unfair to both. `RESULTS.md` beside this file has figures.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

LAKEWARD = [str(Path(sys.executable).with_name("lakeward"))]
PIPELINE = "name: bench\nsource: {use: sqlite, path: sensor.db}\nsinks: {lake: {use: parquet, path: lake}}\n"
PLAIN = """
import adbc_driver_manager, adbc_driver_sqlite, pyarrow as pa, pyarrow.parquet as pq
database = adbc_driver_sqlite.connect("sensor.db")
connection = adbc_driver_manager.AdbcConnection(database)
statement = adbc_driver_manager.AdbcStatement(connection)
statement.set_options(**{"adbc.sqlite.query.batch_rows": "65536"})
statement.set_sql_query("SELECT * FROM sensor_readings ORDER BY 1")
handle, _ = statement.execute_query()
for number, batch in enumerate(pa.RecordBatchReader._import_from_c(handle.address)):
    with pq.ParquetWriter(f"plain/{number}.parquet", batch.schema) as writer:
        writer.write_batch(batch)
for each in (statement, connection, database):
    each.close()
"""
Cost = tuple[float, float, float]


def cost(command: Sequence[str], folder: Path) -> Cost:
    """Wall seconds, CPU seconds, peak MB of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)[:200]}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def told(name: str, costs: Sequence[Cost]) -> None:
    """Medians, with the least and the most."""
    cells = []
    for values, form in zip(zip(*costs, strict=True), ("{:.2f} s", "{:.2f} s", "{:.0f} MB"), strict=True):
        middle, least, most = (form.format(figure) for figure in (statistics.median(values), min(values), max(values)))
        cells.append(f"{middle} ({least.split()[0]}-{most.split()[0]})")
    print(f"| {name} | {' | '.join(cells)} | {len(costs)} |", flush=True)


def main(folder: Path, rows: int) -> None:
    """Make the database, measure, print a table."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "sensor.db").exists():
        subprocess.run(
            [*LAKEWARD, "sensor", "run", "--db", "sensor.db", "--rows", str(rows), "--rate", "0", "--seed", "7"], cwd=folder, check=True
        )
    (folder / "bench.yaml").write_text(PIPELINE)
    run, plain = [*LAKEWARD, "run", "bench.yaml", "--once"], [sys.executable, "-c", PLAIN]
    ours, theirs = [], []
    for _ in range(3):
        for made in (".lakeward", "lake", "plain"):
            shutil.rmtree(folder / made, ignore_errors=True)
        (folder / "plain").mkdir()
        ours.append(cost(run, folder))
        theirs.append(cost(plain, folder))
    print("| what | wall | CPU | peak memory | runs |\n| --- | --- | --- | --- | --- |")
    told(f"{rows:,} rows to Parquet, lakeward", ours)
    told(f"{rows:,} rows to Parquet, a plain loop over ADBC", theirs)
    told("`lakeward run --once` without new rows", [cost(run, folder) for _ in range(11)])
    told("`lakeward --help`", [cost([*LAKEWARD, "--help"], folder) for _ in range(11)])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/bench"), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
