"""The commands as a user types them, on a real database."""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import polars
import pytest

import commands
from commands import start, until

YAML = """
name: demo
source: {use: sqlite, path: sensor.db}
transforms:
  checked: {use: physics_validation, profile: none, rules: [{id: hot, kind: range, field: temperature, fail: [0, 50]}]}
sinks:
  raw: {use: parquet, from: source, path: lake/raw}
  cool: {use: parquet, from: checked.valid, path: lake/cool}
batch: {rows: 100, wait: 50ms}
"""
Lakeward = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "demo.yaml").write_text(YAML)
    database = sqlite3.connect(tmp_path / "sensor.db")
    database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, temperature REAL)")
    rows = [(f"2026-01-01T00:00:{n % 60:02d}Z", float(n % 100)) for n in range(1000)]
    database.executemany("INSERT INTO readings (timestamp, temperature) VALUES (?, ?)", rows)
    database.commit()
    database.close()
    return tmp_path


@pytest.fixture
def lakeward(folder: Path) -> Lakeward:
    return partial(commands.lakeward, folder)


def test_run_once_says_where_every_row_went(lakeward: Lakeward) -> None:
    result = json.loads(lakeward("run", "demo.yaml", "--once", "--json").stdout)
    assert result["run"]["status"] == "done"
    assert result["rows"] == {"read": 1000, "delivered": 1000, "filtered": 0, "dead": 0}
    assert result["reconciled"] is True
    assert result["filtered"] == {"checked.anomalies: nothing takes it": 490}
    assert {name: sink["delivered"] for name, sink in result["sinks"].items()} == {"raw": 1000, "cool": 510}


def test_a_second_run_once_writes_nothing_and_is_quick(lakeward: Lakeward, folder: Path) -> None:
    lakeward("run", "demo.yaml", "--once")
    before = {path: path.stat().st_mtime_ns for path in (folder / "lake").rglob("*")}
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(lakeward("run", "demo.yaml", "--once", "--json").stdout)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime < 1.5  # CPU; a quarter on a calm machine, see bench/RESULTS.md
    assert result["run"]["read"] == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "lake").rglob("*")} == before


def test_status_before_during_and_after_a_run(lakeward: Lakeward, folder: Path) -> None:
    assert "has not run yet" in lakeward("status", "demo.yaml").stdout
    running = start(folder, "run", "demo.yaml")
    try:
        until(lambda: json.loads(lakeward("status", "demo.yaml", "--json").stdout).get("rows", {}).get("read") == 1000)
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=20)
    assert running.returncode == 143
    assert "1,000 rows read = 1,000 delivered + 0 filtered + 0 dead letters" in lakeward("status").stdout
    (listed,) = json.loads(lakeward("status", "--json").stdout)  # without a file there may be more of them
    assert listed["rows"]["read"] == 1000


def test_a_second_instance_is_sent_away_with_3(lakeward: Lakeward, folder: Path) -> None:
    running = start(folder, "run", "demo.yaml")
    try:
        until((folder / ".lakeward" / "demo" / "state.db").exists)
        time.sleep(0.2)
        ran = lakeward("run", "demo.yaml", "--once", code=3)
        assert f"process {running.pid}" in ran.stderr
    finally:
        running.kill()
        running.communicate(timeout=20)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_within_eight_seconds_with_its_code_and_loses_nothing(
    lakeward: Lakeward, folder: Path, number: int, code: int
) -> None:
    running = start(folder, "run", "demo.yaml")
    until((folder / "lake" / "raw").exists)
    began = time.monotonic()
    running.send_signal(number)
    running.communicate(timeout=20)
    assert (running.returncode, time.monotonic() - began < 8) == (code, True)
    result = json.loads(lakeward("run", "demo.yaml", "--once", "--json").stdout)
    assert (result["rows"]["read"], result["sinks"]["raw"]["delivered"]) == (1000, 1000)


def test_control_c_ends_with_130_and_loses_nothing(lakeward: Lakeward, folder: Path) -> None:
    running = start(folder, "run", "demo.yaml")
    time.sleep(1.5)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=9)
    assert (running.returncode, "Traceback" in errors) == (130, False)
    lakeward("run", "demo.yaml", "--once")
    assert json.loads(lakeward("status", "demo.yaml", "--json").stdout)["sinks"]["raw"]["delivered"] == 1000


def test_a_mistake_that_only_a_dry_run_sees_is_one_of_the_file(lakeward: Lakeward, folder: Path) -> None:
    (folder / "lake").mkdir()
    (folder / "lake" / "raw").touch()
    wrong = lakeward("run", "demo.yaml", "--dry-run", code=2).stderr
    assert wrong.startswith("demo.yaml:7:")
    assert "sinks.raw.path: " in wrong


def test_the_state_of_another_pipeline_is_not_gone_on_with(lakeward: Lakeward, folder: Path) -> None:
    lakeward("run", "demo.yaml", "--once", "--state-dir", "state")
    refusal = lakeward("run", "demo.yaml", "--once", "--state-dir", "state", "--set", "name=other", code=1).stderr
    assert refusal == "lakeward: state: is the state of pipeline 'demo'; give 'other' another --state-dir\n"


def test_a_spool_that_cannot_be_written_is_one_line_and_1(lakeward: Lakeward, folder: Path) -> None:
    lakeward("run", "demo.yaml", "--once")
    spool = folder / ".lakeward" / "demo" / "spool"
    spool.rmdir()
    spool.touch()
    assert lakeward("run", "demo.yaml", "--once", code=1).stderr == f"lakeward: {spool}: is not a folder\n"


def test_dry_run_tells_and_leaves_nothing(lakeward: Lakeward, folder: Path) -> None:
    ran = lakeward("run", "demo.yaml", "--once", "--dry-run")
    assert "100 rows read = 100 to deliver + 0 filtered + 0 dead letters" in ran.stdout
    assert not (folder / "lake").exists()
    assert not (folder / ".lakeward").exists()


def test_explain_shows_the_graph_the_query_and_the_columns(lakeward: Lakeward) -> None:
    words = lakeward("explain", "demo.yaml").stdout
    assert words.count("temperature double") == 1, "a port shows what is new on it, not what came in"
    assert "    checked.valid, checked.anomalies: adds qc_row int8, " in words
    assert "checked (physics_validation) takes source.main" in words
    assert "SELECT" in words
    found = json.loads(lakeward("explain", "demo.yaml", "--json").stdout)
    assert found["source"]["columns"] == {"_row": "int64", "id": "int64", "timestamp": "string", "temperature": "double"}
    assert list(found["transforms"]["checked"]["ports"]["valid"])[:4] == ["_row", "id", "timestamp", "temperature"]


def test_values_come_from_the_command_line_before_the_environment_before_the_file(lakeward: Lakeward) -> None:
    def rows_read(*arguments: str, **environment: str) -> int:
        ran = lakeward("run", "demo.yaml", "--once", "--dry-run", "--json", *arguments, **environment)
        return int(json.loads(ran.stdout)["read"])

    assert rows_read() == 100
    assert rows_read(LAKEWARD__batch__rows="70") == 70
    assert rows_read("--set", "batch.rows=30", LAKEWARD__batch__rows="70") == 30


def test_json_logs_are_one_object_a_line(lakeward: Lakeward) -> None:
    lines = [json.loads(line) for line in lakeward("run", "demo.yaml", "--once", "--log-format", "json").stderr.splitlines()]
    events = [line.get("event") for line in lines]
    assert events.count("batch_recorded") == 10
    assert (events[0], events[-1]) == ("run_started", "run_finished")


def test_a_sink_can_stamp_rows_with_the_time_of_spooling(lakeward: Lakeward, folder: Path) -> None:
    began = datetime.now(UTC)
    for stamp in ("databricks_inserted_at", "temperature"):
        ran = lakeward("run", "demo.yaml", "--once", "--set", f"sinks.raw.inserted_at={stamp}", code=2 if stamp == "temperature" else 0)
    assert "sinks.raw.inserted_at: the rows have a column 'temperature' already" in ran.stderr
    stamps = polars.read_parquet(folder / "lake" / "raw" / "*.parquet")["databricks_inserted_at"].to_list()
    assert len(stamps) == 1000
    assert began <= min(stamps) <= max(stamps) <= datetime.now(UTC)


def test_named_graphs_share_the_source_and_its_checkpoint(lakeward: Lakeward, folder: Path) -> None:
    (folder / "demo.yaml").write_text(
        "name: demo\nsource: {use: sqlite, path: sensor.db}\nselect: raw\npipelines:\n"
        "  raw: {sinks: {out: {use: parquet, path: lake/raw}}}\n"
        "  warm:\n    transforms: {warm: {use: filter, where: {temperature: {'>': 50}}}}\n"
        "    sinks: {out: {use: parquet, path: lake/warm}}\n"
    )
    lakeward("run", "demo.yaml", "--once")
    database = sqlite3.connect(folder / "sensor.db")
    database.execute("INSERT INTO readings (timestamp, temperature) VALUES ('2026-01-01', 10), ('2026-01-01', 60)")
    database.commit()
    database.close()
    result = json.loads(lakeward("run", "demo.yaml", "--once", "--select", "warm", "--json").stdout)
    assert result["run"] | {"id": "", "seconds": 0} == {
        "id": "", "status": "done", "seconds": 0, "error": "", "read": 2, "filtered": 1, "dead": 0, "delivered": {"warm.out": 1},
    }  # fmt: skip


def test_plugins_are_listed_and_shown(lakeward: Lakeward) -> None:
    listed = json.loads(lakeward("plugins", "list", "--json").stdout)
    assert {"sqlite", "parquet", "delta", "console", "gps_fuzz", "window", "emergency", "schematize", "filter"} <= {
        one["name"] for one in listed
    }
    assert "radius_meters" in lakeward("plugins", "show", "gps_fuzz").stdout
    assert (
        "did you mean" in lakeward("plugins", "show", "gps_fuz", code=1).stderr
        or "gps_fuzz" in lakeward("plugins", "show", "x", code=1).stderr
    )


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "check",
        "explain",
        "status",
        "health",
        "position show",
        "position set",
        "backfill",
        "history",
        "plugins list",
        "plugins show",
        "sensor run",
        "completion",
    ],
)
def test_every_command_has_help_with_examples(lakeward: Lakeward, command: str) -> None:
    words = lakeward(*command.split(), "--help").stdout
    assert f"Usage: python -m lakeward {command}" in words
    assert f"  lakeward {command.split()[0]} " in words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(lakeward: Lakeward, shell: str) -> None:
    assert "_LAKEWARD_COMPLETE" in lakeward("completion", shell).stdout


def test_help_starts_in_a_blink_and_without_pyarrow(lakeward: Lakeward, folder: Path) -> None:
    command = (
        "import sys; from lakeward.cli import main; sys.argv = ['lakeward', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'pyarrow', 'numpy', 'cattrs', 'yaml', 'adbc_driver_manager', 'deltalake'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, timeout=60)
    # 150 ms on a quiet machine; on a shared one what holds is the ratio to the libraries that it cannot do without
    floor = min(_cpu_seconds([sys.executable, "-c", "import attrs, click, pluggy, importlib.metadata"]) for _ in range(5))
    assert min(_cpu_seconds([sys.executable, "-m", "lakeward", "--help"]) for _ in range(5)) < 2 * floor


def _cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
