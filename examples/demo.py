"""The main job in half a minute: a sensor writes, lakeward moves, and a table says what happened to every row.

Run it with `make demo`. Everything stays in ./demo; running it again starts afresh.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
from deltalake import DeltaTable
from pyproj import Geod

from lakeward.cli.table import table

HERE = Path(__file__).parent
DEMO = Path("demo").absolute()
SENSOR, LAKE, STATE = DEMO / "sensor_data.db", DEMO / "lake", DEMO / "state"
LAKEWARD = [sys.executable, "-m", "lakeward"]
PIPELINE = [str(HERE / "environmental.yaml"), "--state-dir", str(STATE), "--set", "transforms.windows.window.size=5s"]
TABLES = [
    (
        ("anomalies by rule", "rows"),
        "SELECT reason.rule_id, count(*) FROM (SELECT unnest(qc_reasons) AS reason FROM anomalies) GROUP BY ALL ORDER BY 2 DESC",
    ),
    (
        ("alerts", "severity", "raised", "worst value"),
        "SELECT alert_type, severity, count(*), max(value) FROM alerts WHERE event = 'RAISE' GROUP BY ALL ORDER BY ALL",
    ),
    (
        ("windows of 5 s", "start", "rows", "mean temperature"),
        "SELECT sensor_id, strftime(window_start AT TIME ZONE 'UTC', '%H:%M:%S'), record_count, round(avg_temperature, 2)"
        f" FROM '{LAKE}/windows/*.parquet' ORDER BY window_start DESC, sensor_id LIMIT 5",
    ),
]
SECONDS, RATE = int(os.environ.get("DEMO_SECONDS", "20")), 500


def main() -> None:
    """Start the sensor, run the pipeline while it writes, then count."""
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    environment = {**os.environ, "SENSOR_DB": str(SENSOR), "LAKE": str(LAKE), "GPS_FUZZ_KEY": os.urandom(16).hex()}
    print(f"A simulated sensor writes {RATE} rows a second for {SECONDS} s, a quarter of them anomalies ...", flush=True)
    writing = ["sensor", "run", "--db", str(SENSOR), "--rate", str(RATE), "--duration", f"{SECONDS}s", "--anomalies", "0.25", "--seed", "7"]
    with (DEMO / "sensor.log").open("w") as log:
        sensor = subprocess.Popen([*LAKEWARD, *writing, "--sensors", "5"], stderr=log, stdout=log, env=environment)
    run: subprocess.Popen[bytes] | None = None
    try:
        wait_for_rows(sensor)
        print("... while lakeward runs examples/environmental.yaml on it.\n", flush=True)
        with (DEMO / "run.log").open("w") as log:
            run = subprocess.Popen([*LAKEWARD, "run", *PIPELINE, "--log-format", "json"], stderr=log, stdout=log, env=environment)
        watch(sensor, run)
        run.send_signal(signal.SIGTERM)  # finishes what is in hand
        run.wait(30)
    finally:
        for process in (sensor, run):
            if process is not None and process.poll() is None:
                process.kill()
    # the sensor has stopped for good: read the rest and close the windows
    rest = [*LAKEWARD, "run", *PIPELINE, "--once", "--finish", "--json"]
    last = subprocess.run(rest, env=environment, capture_output=True, text=True, check=False)
    if last.returncode:
        sys.exit(f"the run failed:\n{last.stderr}\n(see {DEMO / 'run.log'})")
    explained = subprocess.run([*LAKEWARD, "explain", PIPELINE[0], "--json"], env=environment, capture_output=True, text=True, check=True)
    show(json.loads(last.stdout), {name: ", ".join(sink["from"]) for name, sink in json.loads(explained.stdout)["sinks"].items()})


def wait_for_rows(sensor: subprocess.Popen[bytes]) -> None:
    """Until the sensor has made its table."""
    deadline = time.monotonic() + 30
    while not SENSOR.exists() or not SENSOR.stat().st_size:
        if sensor.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the sensor did not start; see {DEMO / 'sensor.log'}")
        time.sleep(0.1)
    time.sleep(1)


def watch(sensor: subprocess.Popen[bytes], run: subprocess.Popen[bytes]) -> None:
    """Say how it goes, every few seconds, until the sensor is done."""
    while sensor.poll() is None:
        if run.poll() is not None:
            sys.exit(f"the run ended early with exit code {run.returncode}; see {DEMO / 'run.log'}")
        time.sleep(4)
        status = subprocess.run([*LAKEWARD, "status", "--state-dir", str(STATE), "--json"], capture_output=True, text=True, check=False)
        rows = json.loads(status.stdout or "{}").get("rows", {})
        print(f"  {rows.get('read', 0):>7,} rows read, {rows.get('dead', 0):,} dead letters", flush=True)
    print()


def show(report: dict[str, Any], ports: dict[str, str]) -> None:
    """The table that a person understands; `ports` says whose rows each sink takes."""
    with sqlite3.connect(SENSOR) as database:
        written = database.execute("SELECT count(*) FROM sensor_readings").fetchone()[0]
    database.close()
    files = {name: len(list((LAKE / folder).glob("*.parquet"))) for name, folder in folders(report).items()}  # not Delta's checkpoints
    columns = ("delivered", "waiting", "refused")
    sinks = [(ports[name], name, *(sink[column] for column in columns), files[name]) for name, sink in report["sinks"].items()]
    print(table(("rows of port", "to sink", *columns, "files written"), sinks), "\n")

    with duckdb.connect() as connection:
        for name in ("anomalies", "readings", "alerts"):
            connection.register(name, DeltaTable(str(LAKE / name)).to_pyarrow_table())
        for head, query in TABLES:
            print(table(head, connection.sql(query).fetchall()), "\n")
        metres = moved(connection)

    rows = report["rows"]
    facts = [
        ("rows the sensor wrote", written),
        ("rows read", rows["read"]),
        ("  delivered", rows["delivered"]),
        ("  filtered", rows["filtered"]),
        ("  dead letters", rows["dead"]),
        ("windows", report["sinks"]["windows_table"]["delivered"]),
        ("alerts raised and cleared", report["sinks"]["alerts_table"]["delivered"]),
        ("positions hidden", len(metres)),
        ("  metres away, on average", f"{metres.mean():.1f}"),
        ("  still exact", int((metres == 0).sum())),
    ]
    print(table(("in all", "rows"), facts), "\n")
    print(f"{rows['read']:,} read = {rows['delivered']:,} delivered + {rows['filtered']:,} filtered + {rows['dead']:,} dead letters")
    exact = written == rows["read"] == rows["delivered"] + rows["filtered"] + rows["dead"]
    filtered = sum(report["filtered"].values())
    raw, readings, odd = (report["sinks"][name]["delivered"] for name in ("raw", "readings_table", "anomalies"))
    print(f"{raw:,} raw rows = {readings:,} readings + {odd:,} anomalies + {filtered:,} filtered")
    if not exact or raw != readings + odd + filtered:
        sys.exit("These do not add up: please report it.")
    print("\nEvery row is accounted for. Try next:\n")
    print(f"  .venv-demo/bin/lakeward status --state-dir {STATE.relative_to(Path.cwd())}")
    print("  .venv-demo/bin/lakeward plugins show window")
    print("  less examples/environmental.yaml")


def moved(connection: duckdb.DuckDBPyConnection) -> Any:
    """How many metres the position of each reading is from the true one, which only the raw rows have."""
    columns = "raw.longitude AS lon, raw.latitude AS lat, readings.longitude AS hidden_lon, readings.latitude AS hidden_lat"
    raw = f"read_parquet('{LAKE}/raw/*.parquet') AS raw"
    found = connection.sql(f"SELECT {columns} FROM readings JOIN {raw} ON id = reading_id WHERE lat IS NOT NULL").fetchnumpy()
    return Geod(ellps="WGS84").inv(found["lon"], found["lat"], found["hidden_lon"], found["hidden_lat"])[2]


def folders(report: dict[str, Any]) -> dict[str, str]:
    """The folder of each sink below the lake."""
    return {name: Path(sink["location"]).relative_to(LAKE).parts[0] for name, sink in report["sinks"].items()}


if __name__ == "__main__":
    main()
