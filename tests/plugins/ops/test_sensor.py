import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lakeward.testing import PluginContract
from lakeward_plugins.ops.sensor import sensor

COLUMNS = [
    ("id", "INTEGER"), ("timestamp", "TEXT"), ("sensor_id", "TEXT"), ("temperature", "REAL"), ("humidity", "REAL"), ("pressure", "REAL"),
    ("vibration", "REAL"), ("voltage", "REAL"), ("status_code", "INTEGER"), ("anomaly_flag", "INTEGER"), ("anomaly_type", "TEXT"),
    ("firmware_version", "TEXT"), ("model", "TEXT"), ("manufacturer", "TEXT"), ("location", "TEXT"), ("latitude", "REAL"),
    ("longitude", "REAL"), ("original_timezone", "TEXT"), ("synced", "INTEGER"),
]  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path), "TERM": "xterm"}
SCRIPT = "from lakeward_plugins.ops.sensor import sensor; sensor()"


class TestSensorContract(PluginContract):
    module = "lakeward_plugins.ops.sensor"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(sensor, ["run", *arguments])


def ran(*arguments: str) -> dict[str, Any]:
    done = invoked(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def query(path: str, sql: str = "SELECT * FROM sensor_readings ORDER BY id") -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_writes_the_whole_column_set_in_wal_mode() -> None:
    found = ran("--rows", "50", "--rate", "0")
    assert found["rows"] == 50
    assert found["databases"] == ["data/sensor_data.db"]
    (path,) = found["databases"]
    assert [(name, kind) for _, name, kind, *_ in query(path, "PRAGMA table_info(sensor_readings)")] == COLUMNS
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert [row[0] for row in query(path)] == list(range(1, 51))
    assert query(path, "SELECT DISTINCT synced, anomaly_flag, anomaly_type FROM sensor_readings") == [(0, 0, None)]


def test_the_same_seed_and_start_give_the_same_file_content() -> None:
    arguments = ("--rows", "1200", "--rate", "0", "--seed", "7", "--anomalies", "0.1", "--gps", "track", "--sensors", "3")
    ran(*arguments, "--start", "2025-01-01T00:00:00Z", "--db", "a.db")
    ran(*arguments, "--start", "2025-01-01T00:00:00Z", "--db", "b.db")
    assert query("a.db") == query("b.db")


def test_the_same_seed_gives_the_same_rows_but_for_the_clock() -> None:
    for name in ("a.db", "b.db"):
        ran("--rows", "40", "--rate", "1000", "--seed", "7", "--db", name)
    one, other = query("a.db"), query("b.db")
    assert [row[2:] for row in one] == [row[2:] for row in other]
    assert one[0][1] != other[0][1]


def test_without_a_seed_the_values_differ_and_the_seed_is_told() -> None:
    found = [ran("--rows", "5", "--rate", "0", "--db", name) for name in ("a.db", "b.db")]
    assert query("a.db", "SELECT temperature FROM sensor_readings") != query("b.db", "SELECT temperature FROM sensor_readings")
    ran("--rows", "5", "--rate", "0", "--db", "c.db", "--seed", str(found[0]["seed"]))
    assert [row[2:] for row in query("a.db")] == [row[2:] for row in query("c.db")]


def test_stamps_follow_the_start_at_the_rate() -> None:
    ran("--rows", "4", "--rate", "8", "--start", "2025-01-01T01:00:00+01:00")
    assert [row[1] for row in query("data/sensor_data.db")] == [
        f"2025-01-01T00:00:00.{micros:06d}+00:00" for micros in (0, 125_000, 250_000, 375_000)
    ]


def test_stamps_are_the_clock_when_no_start_is_given() -> None:
    before = datetime.now(UTC)
    ran("--rows", "600", "--rate", "0")
    stamps = [datetime.fromisoformat(row[1]) for row in query("data/sensor_data.db")]
    assert before <= stamps[0]
    assert stamps == sorted(stamps)
    assert stamps[-1] <= datetime.now(UTC)


@pytest.mark.parametrize("rate", [5, 400])
def test_keeps_the_rate_for_the_duration(rate: int) -> None:
    found = ran("--rate", str(rate), "--duration", "1s")
    assert found["rows"] == rate
    assert 1 - 1 / rate - 0.05 <= found["seconds"] < 1.4
    stamps = [datetime.fromisoformat(row[1]) for row in query("data/sensor_data.db")]
    assert abs((stamps[-1] - stamps[0]) - timedelta(seconds=(rate - 1) / rate)) < timedelta(milliseconds=1)


def test_as_fast_as_it_can_ends_with_the_duration() -> None:
    found = ran("--rate", "0", "--duration", "300ms")
    assert found["rows"] > 500
    assert 0.3 <= found["seconds"] < 1.0
    assert len(query("data/sensor_data.db", "SELECT id FROM sensor_readings")) == found["rows"]


def test_the_result_counts_the_anomalies_in_the_file() -> None:
    found = ran("--rows", "3000", "--rate", "0", "--anomalies", "0.25")
    assert found["anomalies"] == dict(
        query("data/sensor_data.db", "SELECT anomaly_type, count(*) FROM sensor_readings WHERE anomaly_flag = 1 GROUP BY 1")
    )
    assert abs(sum(found["anomalies"].values()) - 750) <= 72  # three sigma


def test_modes_choose_the_anomalies() -> None:
    assert set(ran("--rows", "500", "--rate", "0", "--anomalies", "0.5", "--modes", "normal,spike, stuck")["anomalies"]) == {
        "spike",
        "stuck",
    }
    assert ran("--rows", "500", "--rate", "0", "--modes", "normal")["anomalies"] == {}


def test_a_fleet_has_a_file_for_each_sensor_of_each_city() -> None:
    found = ran("--rows", "60", "--rate", "0", "--cities", "London, Paris,London", "--sensors", "3", "--root", "fleet")
    assert len(found["databases"]) == 6
    for path in found["databases"]:
        root, city, code, name = Path(path).parts
        assert (root, name) == ("fleet", "sensor_data.db")
        assert city in ("London", "Paris")
        assert {row[2] for row in query(path)} == {f"{city}_{code}"}
        assert len(query(path)) == 10


def test_a_fleet_is_continued_by_the_same_command() -> None:
    first = ran("--rows", "4", "--rate", "0", "--cities", "Rome", "--sensors", "2")
    assert ran("--rows", "4", "--rate", "0", "--cities", "Rome", "--sensors", "2")["databases"] == first["databases"]
    assert [len(query(path)) for path in first["databases"]] == [4, 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "run", "--rate", "200", "--json", "--anomalies", "0.1"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    path = tmp_path / "data/sensor_data.db"
    end = time.monotonic() + 20
    while time.monotonic() < end and not _rows(path):
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert not path.with_name("sensor_data.db-wal").exists()
    found = json.loads(out)
    assert found["rows"] == _rows(path) > 0
    assert err.splitlines()[-1].startswith(f"{found['rows']:,} rows in ")
    assert "Traceback" not in err
    assert query(str(path), "PRAGMA integrity_check") == [("ok",)]


def _rows(path: Path) -> int:
    try:
        return int(query(str(path), "SELECT count(*) FROM sensor_readings")[0][0])
    except sqlite3.OperationalError:  # not there yet
        return 0


def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    mine, theirs = pty.openpty()
    for more in (["--rows", "1500"], ["--duration", "200ms"]):
        command = [sys.executable, "-c", SCRIPT, "run", "--rate", "0", *more]
        process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=theirs)
        assert process.wait(timeout=20) == 0
        shown = os.read(mine, 1 << 20).decode()
        assert "rows" in shown
        assert ("1500/1500" in shown) == (more[0] == "--rows")
    os.close(mine)
    os.close(theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "-1"], "-1.0 is not in the range"),
        (["--rate", "nan"], "nan is no number"),
        (["--rate", "inf"], "inf is not in the range"),
        (["--rate", "1e-300"], "slower than"),
        (["--duration", "soon"], "'soon' is no duration; write 90s, 500ms, 10m or 1h"),
        (["--duration", "0s"], "'0s' is no duration"),
        (["--duration", "9" * 400], "is no duration"),
        (["--rows", "0"], "0 is not in the range x>=1"),
        (["--start", "yesterday"], "'yesterday' is no ISO 8601 time; write it as 2025-01-01T00:00:00Z"),
        (["--start", "9999-12-31"], "the year 9999 is out of range"),
        (["--anomalies", "25"], "25.0 is not in the range 0<=x<=1"),
        (["--anomalies", "nan"], "nan is no number"),
        (["--modes", "spikes"], "there is no mode 'spikes', did you mean 'spike'?"),
        (["--modes", "chaos"], "there are normal, spike, trend, stuck, missing, drift"),
        (["--modes", "normal", "--anomalies", "0.1"], "leaves nothing that can go wrong"),
        (["--modes", ",", "--anomalies", "0.1"], "leaves nothing that can go wrong"),
        (["--cities", "London,../x"], "'../x' cannot be the name of a folder"),
        (["--cities", " , "], "no city in it"),
        (["--cities", "Paris", "--db", "x.db"], "--db is for one database; with --cities, give --root"),
        (["--root", "fleet"], "without cities, give --db"),
        (["--cities", "Paris,Rome", "--sensors", "200"], "2 x 200 sensors with a file each are too many; 250 are possible"),
        (["--gps", "moving"], "'moving' is not one of 'fixed', 'track'"),
        (["--db", "."], "is a directory"),
        (["--db", "text.db"], "text.db: is no SQLite database"),
        (["--db", "text.db/x.db"], "text.db/x.db: a file is where its folder should be"),
        (["--db", "torn.db"], "torn.db: file is not a database"),
    ],
)
def test_a_mistake_is_told_in_words_and_exits_with_2(arguments: list[str], message: str) -> None:
    Path("text.db").write_text("this is a text, and not a database")
    Path("torn.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 200)
    done = invoked("--rows", "1", *arguments)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_help_has_examples() -> None:
    done = invoked("--help")
    assert done.exit_code == 0
    assert "lakeward sensor run --duration 60s --anomalies 0.25" in done.output
