"""What an operator does to a pipeline: look how it is, set its position, meet a state that cannot be used."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

import commands
from commands import until, write_readings

YAML = """
name: demo
source: {use: sqlite, path: sensor.db}
sinks:
  raw: {use: parquet, path: lake/raw, row_key: true}
batch: {rows: 100, wait: 50ms}
"""
Lakeward = Callable[..., subprocess.CompletedProcess[str]]
STATE = Path(".lakeward") / "demo"
NAMESPACE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "demo.yaml").write_text(YAML)
    write_readings(tmp_path, 500)
    return tmp_path


@pytest.fixture
def lakeward(folder: Path) -> Lakeward:
    return partial(commands.lakeward, folder)


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "lakeward", "run", "demo.yaml"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)


def arrivals(folder: Path) -> Counter[int]:
    return Counter(dict(duckdb.sql(f"SELECT id, count(*) FROM '{folder}/lake/raw/*.parquet' GROUP BY id").fetchall()))


# -- position ----------------------------------------------------------------------------------------------------------


def test_rows_after_a_position_that_was_set_arrive_again_and_it_is_kept_who_wanted_it(lakeward: Lakeward, folder: Path) -> None:
    assert lakeward("position", "show", "demo.yaml").stdout == "at the start: nothing was read yet\n"
    lakeward("run", "demo.yaml", "--once")
    header, line = lakeward("position", "show", "demo.yaml").stdout.splitlines()
    assert (header.split()[:2], line.split()[:4]) == (["INPUT", "ID"], ["the", "only", "one", "500"])
    said = lakeward("position", "set", "demo.yaml", "--to", "450", "--reason", "recalibrated", "--by", "ada").stdout
    assert "rows 451 to 500 will be read again (at most 50)" in said
    found = json.loads(lakeward("position", "show", "demo.yaml", "--json").stdout)
    assert (found["position"]["id"], found["position"]["epoch"]) == (450, 1_000_000)
    lakeward("run", "demo.yaml", "--once")
    assert arrivals(folder) == Counter(dict.fromkeys(range(1, 501), 1)) + Counter(dict.fromkeys(range(451, 501), 1))
    lakeward("position", "set", "demo.yaml", "--to", "490", "--reason", "once more")
    lakeward("run", "demo.yaml", "--once")
    assert arrivals(folder)[491] == 3
    status = json.loads(lakeward("status", "demo.yaml", "--json").stdout)
    assert (status["epoch"], [event["kind"] for event in status["events"]]) == (2_000_000, ["position_set", "position_set"])
    told = status["events"][1]["detail"]
    assert told.startswith("ada set the position: recalibrated; from id 500")
    assert told.endswith(" to id 450, epoch 1000000")
    assert "recalibrated" in lakeward("status", "demo.yaml").stdout


def test_rows_are_jumped_over_and_a_position_can_be_set_by_hand(lakeward: Lakeward, folder: Path) -> None:
    said = lakeward("position", "set", "demo.yaml", "--json-position", '{"id": 200}', "--reason", "old rows are bad").stdout
    assert said.startswith("from the start to id 200\n")
    said = lakeward("position", "set", "demo.yaml", "--to", "300", "--reason", "these too").stdout
    assert "rows 201 to 300 will not be read (at most 100)" in said
    lakeward("run", "demo.yaml", "--once")
    assert arrivals(folder) == Counter(range(301, 501))


def test_one_file_of_many_is_read_again_by_a_new_position_and_by_a_backfill(lakeward: Lakeward, folder: Path) -> None:
    for name in ("north", "south"):
        (folder / "sites" / name).mkdir(parents=True)
        write_readings(folder / "sites" / name, 30)
    (folder / "demo.yaml").write_text(YAML.replace("path: sensor.db", "path: sites/*/sensor.db"))

    def arrived() -> list[int]:
        return sorted(arrivals(folder).values())

    lakeward("run", "demo.yaml", "--once")
    assert arrived() == [2] * 30
    origins = [line.split()[0] for line in lakeward("position", "show", "demo.yaml").stdout.splitlines()[1:]]
    (north,) = [origin for origin in origins if "north" in origin]
    said = lakeward("position", "set", "demo.yaml", "--to", "20", "--origin", north, "--reason", "x").stdout
    assert "rows 21 to 30 will be read again (at most 10)" in said
    assert "south" not in said
    lakeward("run", "demo.yaml", "--once")
    assert arrived() == [2] * 20 + [3] * 10
    lakeward("backfill", "demo.yaml", "--from", "26", "--to", "30", "--origin", north, "--reason", "x")
    assert arrived() == [2] * 20 + [3] * 5 + [4] * 5
    assert "name the input" in lakeward("backfill", "demo.yaml", "--from", "1", "--to", "9", "--reason", "x", code=1).stderr


def test_a_new_position_of_one_file_leaves_those_of_all_others_and_no_epoch_comes_twice(lakeward: Lakeward, folder: Path) -> None:
    for name in ("north", "south"):
        (folder / "sites" / name).mkdir(parents=True)
        write_readings(folder / "sites" / name, 30)
    (folder / "demo.yaml").write_text(YAML.replace("path: sensor.db", "path: sites/*/sensor.db"))

    def position() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(lakeward("position", "show", "demo.yaml", "--json").stdout)["position"]
        return found

    def set_to(key: int) -> int:
        lakeward("position", "set", "demo.yaml", "--to", str(key), "--origin", "north/sensor.db", "--reason", "x")
        lakeward("run", "demo.yaml", "--once")
        return int(position()["north/sensor.db"]["epoch"])

    lakeward("run", "demo.yaml", "--once")
    south = position()["south/sensor.db"]
    epochs = [0, set_to(20)]
    with closing(sqlite3.connect(folder / "sites/north/sensor.db")) as database, database:
        database.execute("UPDATE readings SET temperature = temperature + 100")
    lakeward("run", "demo.yaml", "--once")
    epochs += [int(position()["north/sensor.db"]["epoch"]), set_to(25)]
    assert epochs == [0, 1_000_000, 1_000_001, 2_000_000]
    assert position()["south/sensor.db"] == south


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "7"], "Missing option '--reason'"),
        (["--to", "7", "--reason", " "], "--reason is empty"),
        (["--reason", "x"], "give either --to ID or --json-position JSON"),
        (["--to", "7", "--json-position", "{}", "--reason", "x"], "give either --to ID or --json-position JSON"),
        (["--json-position", "[1]", "--reason", "x"], "must be a JSON object"),
        (["--json-position", "{", "--reason", "x"], "is not JSON"),
    ],
)
def test_a_position_is_not_set_without_a_place_and_a_reason(lakeward: Lakeward, folder: Path, arguments: list[str], message: str) -> None:
    assert message in lakeward("position", "set", "demo.yaml", *arguments, code=2).stderr
    assert not (folder / STATE).exists()


def test_a_position_of_another_input_is_one_line(lakeward: Lakeward) -> None:
    said = lakeward("position", "set", "demo.yaml", "--to", "1", "--origin", "other.db", "--reason", "x", code=1).stderr
    assert said.count("\n") == 1
    assert "the source cannot read that again: origin: " in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "501"], "key: table 'readings' ends at 500, before 501"),
        (["--json-position", '{"id": "x"}'], "{'id': 'x'} is not a position in a SQLite table"),
        (["--json-position", '{"id": 9223372036854775808}'], "is not a position in a SQLite table"),
    ],
)
def test_a_position_that_the_source_does_not_have_is_not_taken(lakeward: Lakeward, arguments: list[str], message: str) -> None:
    lakeward("run", "demo.yaml", "--once")
    said = lakeward("position", "set", "demo.yaml", *arguments, "--reason", "x", code=1).stderr
    assert message in said
    assert said.count("\n") == 1
    lakeward("run", "demo.yaml", "--once")
    assert json.loads(lakeward("status", "demo.yaml", "--json").stdout)["rows"]["read"] == 500


def test_status_tells_of_long_parts_of_a_position_only_how_much_they_are(lakeward: Lakeward) -> None:
    lakeward("run", "demo.yaml", "--once")
    whole = json.loads(lakeward("position", "show", "demo.yaml", "--json").stdout)["position"]
    told = json.loads(lakeward("status", "demo.yaml", "--json").stdout)["position"]
    assert (told["id"], told["epoch"], told["anchors"]) == (500, 0, len(whole["anchors"]))
    assert len(json.dumps(told)) < 200 < len(json.dumps(whole))


def test_an_empty_state_dir_is_not_the_folder_where_one_stands(lakeward: Lakeward, folder: Path) -> None:
    assert "'--state-dir': is empty; name a folder" in lakeward("run", "demo.yaml", "--once", "--state-dir", "", code=2).stderr
    assert not (folder / "state.db").exists()


def test_a_state_that_is_removed_under_a_run_ends_it_with_one_line(folder: Path) -> None:
    command = [sys.executable, "-m", "lakeward", "run", "demo.yaml", "--log-level", "error"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        try:
            until(lambda: any((folder / "lake" / "raw").glob("*.parquet")) and sum(arrivals(folder).values()) == 500)
            (folder / STATE).rename(folder / "gone")
            errors = run.communicate(timeout=60)[1]
        finally:
            run.kill()
    assert run.returncode == 1
    assert (
        errors.splitlines()[-1]
        == f"lakeward: {folder / STATE}: somebody removed the state; a new run begins anew and sends every row again"
    )
    assert "Traceback" not in errors


def test_a_key_that_no_row_can_have_is_one_line(lakeward: Lakeward) -> None:
    said = lakeward("position", "set", "demo.yaml", "--to", str(2**63), "--reason", "x", code=1).stderr
    assert said.count("\n") == 1
    assert "no key is below -9223372036854775808 or above 9223372036854775807" in said


def test_a_run_that_is_to_go_on_waits_for_a_database_that_is_locked(lakeward: Lakeward, folder: Path) -> None:
    (folder / "demo.yaml").write_text(YAML.replace("path: sensor.db", "path: sensor.db, busy_timeout: 10ms"))
    with closing(sqlite3.connect(folder / "sensor.db", isolation_level=None)) as sensor:
        sensor.execute("BEGIN EXCLUSIVE")
        assert "database is locked" in lakeward("run", "demo.yaml", "--once", code=1).stderr
        with running(folder) as process:
            time.sleep(2)
            assert process.poll() is None
            sensor.execute("COMMIT")
            until(lambda: any((folder / "lake" / "raw").glob("*.parquet")) and sum(arrivals(folder).values()) == 500)


def test_a_position_is_not_set_under_a_run_that_is_alive(lakeward: Lakeward, folder: Path) -> None:
    with running(folder) as process:
        until(lambda: (folder / "lake" / "raw").exists())
        said = lakeward("position", "set", "demo.yaml", "--to", "1", "--reason", "x", code=3).stderr
        assert f"another instance holds this state (process {process.pid}); stop the run first\n" in said
        assert "INPUT" in lakeward("position", "show", "demo.yaml").stdout


# -- health ------------------------------------------------------------------------------------------------------------


def test_health_before_during_and_after_a_run(lakeward: Lakeward, folder: Path) -> None:
    def health(*arguments: str, code: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(lakeward("health", "demo.yaml", "--json", *arguments, code=code).stdout)
        assert found["healthy"] is (code == 0)
        return found

    assert health(code=1)["problems"] == [f"{folder / STATE}: no run has begun yet"]
    with running(folder) as process:
        until(lambda: any((folder / "lake" / "raw").glob("*.parquet")) and len(arrivals(folder)) == 500)
        until(lambda: json.loads(lakeward("status", "demo.yaml", "--json").stdout)["sinks"]["raw"]["waiting"] == 0)
        found = health("--max-age", "1h", code=0)
        assert (found["process"], found["waiting"], found["waiting_since"]) == (str(process.pid), {}, None)
        assert found["last_batch"]
        assert found["spool"]["cap"] > 0 == found["spool"]["bytes"]
        words = lakeward("health", "demo.yaml").stdout
        assert words.startswith("healthy\n")
        assert f"process {process.pid}\n" in words
        time.sleep(1.1)
        assert "the last batch is " in health("--max-age", "1s", code=1)["problems"][0]
        (folder / "sensor.db").rename(folder / "away.db")
        until(lambda: "source" in json.loads(lakeward("status", "demo.yaml", "--json").stdout)["troubles"])
        (problem,) = health(code=1)["problems"]
        assert problem.startswith(f"source: {folder / 'sensor.db'} is gone; waiting for it to come back")
        assert f"does not work now: {problem}" in lakeward("status", "demo.yaml").stdout
        (folder / "away.db").rename(folder / "sensor.db")
        until(lambda: not json.loads(lakeward("status", "demo.yaml", "--json").stdout)["troubles"])
        health(code=0)
    assert health(code=1)["problems"] == ["no run is alive"]
    assert "no run is alive" in lakeward("health", "demo.yaml", code=1).stdout


def test_health_tells_of_rows_that_wait_for_long(lakeward: Lakeward, folder: Path) -> None:
    (folder / "lake").mkdir()
    (folder / "lake" / "raw").touch()  # so that the sink refuses
    lakeward("run", "demo.yaml", "--once", code=1)
    old = time.time() - 7200
    os.utime(min((folder / STATE / "spool").iterdir()), (old, old))
    found = json.loads(lakeward("health", "demo.yaml", "--json", code=1).stdout)
    assert found["waiting"] == {"raw": {"parcels": 5, "rows": 500}}
    assert "rows have waited for raw for 2 hours" in found["problems"]
    assert "waiting:      raw 500 rows (for 2 hours)" in lakeward("health", "demo.yaml", code=1).stdout
    assert "expected a duration" in lakeward("health", "demo.yaml", "--max-wait", "soon", code=2).stderr


# -- a state that cannot be used ---------------------------------------------------------------------------------------


def _torn(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[100:1000] = b"\xff" * 900
    file.write_bytes(content)


def _newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA user_version = 99")


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "garbage": (lambda file: file.write_bytes(b"garbage" * 1000), "start anew with another --state-dir"),
    "torn": (_torn, "start anew with another --state-dir"),
    "empty": (lambda file: file.write_bytes(b""), "is empty or gone, although runs were here"),
    "gone": (Path.unlink, "is empty or gone, although runs were here"),
    "newer": (_newer, "made by a newer lakeward"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_a_state_that_cannot_be_used_is_one_line_and_stays_as_it_is(
    lakeward: Lakeward, folder: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    lakeward("run", "demo.yaml", "--once")
    file = folder / STATE / "state.db"
    spoil(file)
    before = file.read_bytes() if file.exists() else b""
    for command in (["run", "--once"], ["position", "set", "--to", "1", "--reason", "x"]):
        name, rest = (command[:2], command[2:]) if command[0] == "position" else (command[:1], command[1:])
        said = lakeward(*name, "demo.yaml", *rest, code=1).stderr
        assert said.splitlines()[-1].startswith(f"lakeward: {file}: ")
        assert said.count("\n") == 1
        assert message in said
    assert (file.read_bytes() if file.exists() else b"") == before
    if before:
        for looking in (["status"], ["health"], ["position", "show"]):
            assert lakeward(*looking, "demo.yaml", code=1).stderr.count("\n") == 1


def test_a_state_folder_that_may_not_be_written_is_one_line(lakeward: Lakeward, folder: Path) -> None:
    for place in ("/proc/nowhere", "demo.yaml", "demo.yaml/below"):  # not even root may make a folder there
        said = lakeward("run", "demo.yaml", "--once", "--state-dir", place, code=1).stderr
        assert said.count("\n") == 1
        assert said.startswith(f"lakeward: {place}: ")
        assert "choose another --state-dir" in said


def test_a_state_on_a_volume_that_became_read_only_is_one_line(lakeward: Lakeward, folder: Path) -> None:
    lakeward("run", "demo.yaml", "--once")
    mount = f"mount --bind {STATE} {STATE} && mount -o remount,ro,bind {STATE}"
    try:
        subprocess.run([*NAMESPACE, "sh", "-c", mount], cwd=folder, check=True, capture_output=True, timeout=30)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("no volume may be mounted here")
    program = f"{mount} && exec {sys.executable} -m lakeward run demo.yaml --once"
    ran = subprocess.run([*NAMESPACE, "sh", "-c", program], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert ran.stderr == (
        f"lakeward: {folder / STATE}: Read-only file system; choose another --state-dir, or give this user the right to write there\n"
    )
