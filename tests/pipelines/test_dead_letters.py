"""Refused rows as a person meets them: looked at, sent again, given up; through the real command line."""

from __future__ import annotations

import http.server
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import polars
import pytest
from deltalake import DeltaTable

from commands import start, until
from crash.program import environment
from lakeward.cli import main

YAML = """
name: p
source: {use: sqlite, path: sensor.db}
transforms:
  typed: {use: schematize, columns: {id: bigint, timestamp: timestamp, temperature: double}}
sinks:
  raw: {use: parquet, from: source, path: lake/raw}
  typed_rows: {use: parquet, path: lake/typed}
batch: {rows: 8, wait: 50ms}
"""
ROWS = 20
Lakeward = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Row 3 has a text for a number, rows 5 and 6 times that nobody can read."""
    (tmp_path / "p.yaml").write_text(YAML)
    with closing(sqlite3.connect(tmp_path / "sensor.db")) as database:
        database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, temperature REAL)")
        times = {number: f"2026-01-01T00:00:{number:02d}Z" for number in range(1, ROWS + 1)} | {5: "soon", 6: "later"}
        rows = [(number, times[number], "n/a" if number == 3 else number + 0.5) for number in times]
        database.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows)
        database.commit()
    return tmp_path


@pytest.fixture
def lakeward(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lakeward:
    """Run a command, in this process because starting one takes longer than all else; what it printed as JSON, or its error."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(logging.root, "handlers", [])

    def run(*arguments: str, code: int = 0) -> Any:
        monkeypatch.setattr(sys, "argv", ["lakeward", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert (ended.value.code, "Traceback" in err) == (code, False), (out, err)
        return json.loads(out) if out else err

    return run


def die(folder: Path, point: str, *arguments: str) -> None:
    """The real program, killed at a point."""
    program = [sys.executable, "-m", "crash.patched", f"die:{point}:1", "--", *arguments]
    ran = subprocess.run(program, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr


def configure(folder: Path, old: str, new: str) -> None:
    text = (folder / "p.yaml").read_text()
    assert old in text
    (folder / "p.yaml").write_text(text.replace(old, new))


def ids(folder: Path, name: str) -> list[int]:
    return sorted(
        number for (number,) in duckdb.sql(f"SELECT id FROM read_parquet('{folder}/lake/{name}/*.parquet', union_by_name=true)").fetchall()
    )


def all_but(*numbers: int) -> list[int]:
    return [number for number in range(1, ROWS + 1) if number not in numbers]


def letters(lakeward: Lakeward, *arguments: str) -> dict[int, dict[str, Any]]:
    found = lakeward("dead-letters", "list", "p.yaml", *arguments)["letters"]
    return {letter["row_low"]: letter for letter in found}


def assert_verified(lakeward: Lakeward, **rows: int) -> None:
    found = lakeward("verify", "p.yaml")
    assert found["ok"], found
    assert lakeward("status", "p.yaml")["rows"] == {"read": ROWS, "filtered": 0, **rows}


def test_each_row_goes_on_from_where_it_was_refused_and_arrives_once_on_each_branch(folder: Path, lakeward: Lakeward) -> None:
    lakeward("run", "p.yaml", "--once")
    assert (ids(folder, "raw"), ids(folder, "typed")) == (all_but(3), all_but(3, 5, 6))
    found = letters(lakeward)
    assert {row: (one["stage"], one["reason"], one["attempts"]) for row, one in found.items()} == {
        3: ("source", "type", 1), 5: ("typed", "type", 1), 6: ("typed", "type", 1),
    }  # fmt: skip
    assert lakeward("dead-letters", "show", "p.yaml", str(found[3]["id"]))["row"]["temperature"] == "n/a"
    assert_verified(lakeward, delivered=17, dead=3)

    again = lakeward("dead-letters", "replay", "p.yaml", "--all", code=1)
    assert (again["replayed"], len(again["left"])) == (0, 3)
    found = letters(lakeward)
    assert {row: (one["status"], one["attempts"]) for row, one in found.items()} == dict.fromkeys((3, 5, 6), ("open", 2))
    assert "Failed to parse string: 'n/a'" in found[3]["note"]
    assert found[5]["note"].startswith("type: timestamp")
    assert (ids(folder, "raw"), ids(folder, "typed")) == (all_but(3), all_but(3, 5, 6)), "nothing was sent twice"
    assert_verified(lakeward, delivered=17, dead=3)

    configure(folder, "path: sensor.db}", "path: sensor.db, types: {temperature: text}}")
    again = lakeward("dead-letters", "replay", "p.yaml", str(found[3]["id"]))
    assert (again["replayed"], again["left"]) == (1, [])
    assert ids(folder, "raw") == all_but(), "the source can take it now, and so does the branch without rules"
    after = letters(lakeward)
    assert (after[3]["stage"], after[3]["status"], after[3]["attempts"]) == ("typed", "open", 1)
    assert_verified(lakeward, delivered=17, dead=3)

    configure(folder, "timestamp: timestamp, temperature: double", "timestamp: text, temperature: text")
    again = lakeward("dead-letters", "replay", "p.yaml", "--stage", "typed")
    assert (again["replayed"], again["left"]) == (3, [])
    assert (ids(folder, "raw"), ids(folder, "typed")) == (all_but(), all_but())
    assert_verified(lakeward, delivered=20, dead=0)
    assert Counter(one["status"] for one in lakeward("dead-letters", "list", "p.yaml", "--status", "all")["letters"]) == {"replayed": 4}
    assert "no open dead letter like that" in lakeward("dead-letters", "replay", "p.yaml", "--all", code=1), "a second time sends nothing"
    lakeward("run", "p.yaml", "--once")
    assert (ids(folder, "raw"), ids(folder, "typed")) == (all_but(), all_but())


def test_discarded_rows_keep_their_reason_and_stay_dead(folder: Path, lakeward: Lakeward) -> None:
    lakeward("run", "p.yaml", "--once")
    numbers = [letter["id"] for letter in letters(lakeward, "--stage", "typed").values()]
    refused = lakeward("dead-letters", "discard", "p.yaml", f"{min(numbers)}-{max(numbers)}", "--reason", " ", code=2)
    assert "--reason is empty" in refused
    assert "name dead letters by id" in lakeward("dead-letters", "discard", "p.yaml", "--reason", "x", code=2)
    assert "'5-x' is not the id" in lakeward("dead-letters", "discard", "p.yaml", "5-x", "--reason", "x", code=2)
    done = lakeward("dead-letters", "discard", "p.yaml", f"{min(numbers)}-{max(numbers)}", "--reason", "installer's test")
    assert done == {"discarded": 2}
    kept = lakeward("dead-letters", "show", "p.yaml", str(numbers[0]))
    assert (kept["status"], kept["note"], kept["row"]) == ("discarded", "installer's test", None)
    assert list(letters(lakeward)) == [3]
    assert_verified(lakeward, delivered=17, dead=3)
    with closing(sqlite3.connect(folder / ".lakeward" / "p" / "state.db")) as state:
        assert state.execute("SELECT kind, detail, rows FROM events").fetchall() == [("dead_letters_discarded", "installer's test", 2)]
    assert "has no dead letter 99" in lakeward("dead-letters", "show", "p.yaml", "99", code=1)


def test_beside_a_run_the_letters_are_marked_and_the_run_takes_them(folder: Path, lakeward: Lakeward) -> None:
    lakeward("run", "p.yaml", "--once")
    configure(folder, "timestamp: timestamp", "timestamp: text")
    run = start(folder, "run", "p.yaml")
    try:
        until(lambda: (folder / ".lakeward" / "p" / "state.db-wal").exists())
        told = lakeward("dead-letters", "replay", "p.yaml", "--stage", "typed")
        assert told == {"marked": 2, "taken_by": "the run that is alive"}
        until(lambda: list(letters(lakeward)) == [3])
        until(lambda: ids(folder, "typed") == all_but(3))
        assert lakeward("verify", "p.yaml")["ok"]
        assert lakeward("dead-letters", "discard", "p.yaml", "--stage", "source", "--reason", "broken") == {"discarded": 1}
    finally:
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=20)
    assert (ids(folder, "raw"), ids(folder, "typed")) == (all_but(3), all_but(3))
    assert_verified(lakeward, delivered=19, dead=1)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after_spool", "inside_record", "after_record"])
def test_a_replay_that_is_killed_goes_on_and_sends_no_row_twice(folder: Path, lakeward: Lakeward, point: str) -> None:
    lakeward("run", "p.yaml", "--once")
    configure(folder, "timestamp: timestamp", "timestamp: text")
    die(folder, point, "dead-letters", "replay", "p.yaml", "--stage", "typed")
    lakeward("run", "p.yaml", "--once")
    assert (ids(folder, "raw"), ids(folder, "typed")) == (all_but(3), all_but(3))
    assert_verified(lakeward, delivered=19, dead=1)


def test_a_replay_that_is_told_to_stop_says_so_and_the_next_run_delivers(folder: Path, lakeward: Lakeward) -> None:
    lakeward("run", "p.yaml", "--once")
    asked = threading.Event()

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.send_response(503)
            self.send_header("Retry-After", "600")
            self.send_header("Content-Length", "0")
            self.end_headers()
            asked.set()

        do_HEAD = do_GET = do_PUT  # noqa: N815  # as the server looks for them

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        keys = "access_key_id: '${env:S3_KEY}', secret_access_key: '${env:S3_KEY}', region: eu-west-1"
        s3 = f"{{use: s3, bucket: some-bucket, endpoint_url: 'http://127.0.0.1:{server.server_port}', {keys}}}"
        configure(folder, "timestamp: timestamp", "timestamp: text")
        configure(folder, "{use: parquet, path: lake/typed}", s3)
        command = [sys.executable, "-m", "lakeward", "dead-letters", "replay", "p.yaml", "--stage", "typed"]
        secret = {**os.environ, "S3_KEY": "k" * 20}
        replay = subprocess.Popen(command, cwd=folder, env=secret, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert asked.wait(30), replay.poll()
            replay.send_signal(signal.SIGTERM)
            out, errors = replay.communicate(timeout=60)
        finally:
            replay.kill()
            server.shutdown()
    assert (replay.returncode, out) == (143, "2 of 2 dead letters replayed\n")
    assert errors.endswith("lakeward: stopped by signal 15; the next run takes what is left\n")
    configure(folder, s3, "{use: parquet, path: lake/typed}")
    lakeward("run", "p.yaml", "--once")
    assert ids(folder, "typed") == all_but(3)


def test_people_are_shown_the_start_of_a_long_value_and_the_first_of_many_letters(folder: Path, lakeward: Lakeward) -> None:
    with closing(sqlite3.connect(folder / "sensor.db")) as database, database:
        database.execute("UPDATE readings SET temperature = ? WHERE id > 5", ("q" * 10_000,))
        database.executemany("INSERT INTO readings (timestamp, temperature) VALUES ('2026-01-01', ?)", [("n/a",)] * 15)
    configure(folder, "wait: 50ms}", "wait: 50ms}\ndead_letters: {max_ratio: 1}")
    lakeward("run", "p.yaml", "--once")

    def words(*arguments: str) -> str:
        command = [sys.executable, "-m", "lakeward", "dead-letters", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False).stdout

    number = letters(lakeward)[20]["id"]
    shown = words("show", "p.yaml", str(number))
    assert "… (10,002 characters; --json has all)" in shown
    assert len(shown) < 2_000
    assert lakeward("dead-letters", "show", "p.yaml", str(number))["row"]["temperature"] == "q" * 10_000
    lines = words("replay", "p.yaml", "--stage", "source").splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("0 of 31 dead letters replayed", "  and 11 more; --json names all", 22)


def test_a_stage_that_has_left_the_yaml_is_told(folder: Path, lakeward: Lakeward) -> None:
    lakeward("run", "p.yaml", "--once")
    configure(folder, "  typed: {", "  other: {")
    again = lakeward("dead-letters", "replay", "p.yaml", "--all", code=1)
    assert {one["note"] for one in again["left"] if "graph" in one["note"]} == {
        "no 'typed' in this graph; put it back, or select the graph that has it"
    }


# -- of a sink ---------------------------------------------------------------------------------------------------------


def test_rows_that_a_table_does_not_take_are_found_and_go_to_that_sink_alone_when_it_does(folder: Path, lakeward: Lakeward) -> None:
    configure(folder, "sinks:", "sinks:\n  table: {use: delta, from: typed, path: lake/table, inserted_at: stamped}")
    lakeward("run", "p.yaml", "--once", "--set", "batch.rows=2")
    with closing(sqlite3.connect(folder / "sensor.db")) as database:
        database.executemany(
            "INSERT INTO readings VALUES (?, '2026-01-02', ?)", [(number, 99.0 if number in (23, 30) else 1.0) for number in range(21, 37)]
        )
        database.commit()
    DeltaTable(folder / "lake" / "table").alter.add_constraint({"cool": "temperature < 90"})
    lakeward("run", "p.yaml", "--once")

    def in_table() -> list[int]:
        return sorted(polars.read_delta(str(folder / "lake" / "table"))["id"].to_list())

    assert in_table() == [*all_but(3, 5, 6), *(number for number in range(21, 37) if number not in (23, 30))]
    assert ids(folder, "typed") == [*all_but(3, 5, 6), *range(21, 37)]
    status = lakeward("status", "p.yaml")["sinks"]["table"]
    assert (status["refused"], status["waiting"]) == (2, 0)
    assert lakeward("verify", "p.yaml")["ok"]
    found = lakeward("dead-letters", "list", "p.yaml", "--stage", "sink table")
    assert found["groups"] == [{"stage": "sink table", "reason": "sink_rejected", "letters": 2}]
    assert "failed validation check" in found["letters"][0]["detail"]

    again = lakeward("dead-letters", "replay", "p.yaml", "--stage", "sink table")
    assert again["replayed"] == 2, "they are on their way; that the table refuses them again is told by new letters"
    assert len(lakeward("dead-letters", "list", "p.yaml", "--stage", "sink table")["letters"]) == 2
    DeltaTable(folder / "lake" / "table").alter.drop_constraint("cool")
    lakeward("dead-letters", "replay", "p.yaml", "--stage", "sink table")
    assert in_table() == ids(folder, "typed"), "and nobody has a row twice"
    status = lakeward("status", "p.yaml")["sinks"]["table"]
    assert (status["refused"], status["waiting"], status["delivered"]) == (0, 0, status["rows"])
    assert lakeward("verify", "p.yaml")["ok"]


# -- too many ----------------------------------------------------------------------------------------------------------


def test_too_many_dead_letters_stop_the_run_before_anything_of_the_batch_is_recorded(folder: Path, lakeward: Lakeward) -> None:
    with closing(sqlite3.connect(folder / "sensor.db")) as database:
        database.executemany("INSERT INTO readings (timestamp, temperature) VALUES (?, 1)", [("soon",)] * 12)
        database.commit()
    few = ("--set", "dead_letters={max_ratio: 0.4, spare: 2}")
    stopped = lakeward("run", "p.yaml", "--once", *few, code=1)
    assert stopped["rows"] == {"read": 16, "delivered": 13, "filtered": 0, "dead": 3}
    assert stopped["run"]["error"].startswith("4 of 8 rows would become dead letters, most of them from typed (type: timestamp")
    assert stopped["run"]["error"].endswith("accept them with --set dead_letters.max_ratio=1")
    assert lakeward("verify", "p.yaml")["ok"]
    done = lakeward("run", "p.yaml", "--once", *few, "--set", "dead_letters.max_ratio=1")
    assert done["rows"] == {"read": 32, "delivered": 17, "filtered": 0, "dead": 15}


def test_dead_letters_without_room_stop_the_run(folder: Path, lakeward: Lakeward) -> None:
    full = ("--set", "dead_letters.max_mb=0.00012")
    stopped = lakeward("run", "p.yaml", "--once", *full, code=1)
    assert "the dead letters would fill more than 0.00012 MB, and none is ever dropped" in stopped["run"]["error"]
    assert (stopped["rows"], letters(lakeward)) == ({"read": 0, "delivered": 0, "filtered": 0, "dead": 0}, {})
    lakeward("run", "p.yaml", "--once")
    assert_verified(lakeward, delivered=17, dead=3)


# -- verify ------------------------------------------------------------------------------------------------------------


def wrong(lakeward: Lakeward) -> list[str]:
    found = lakeward("verify", "p.yaml", code=1)
    assert not found["ok"]
    return [check["check"] for check in found["checks"] if not check["ok"]]


DAMAGE = {
    "UPDATE totals SET rows = rows + 1 WHERE kind = 'rows' AND name = 'delivered'": "rows read = delivered + filtered + dead",
    "UPDATE totals SET rows = rows - 1 WHERE kind = 'delivered' AND name = 'raw'": "sink raw: spooled = delivered + refused + waiting",
    "UPDATE parcels SET rows = rows + 1 WHERE sequence = 2": "sink typed_rows: spooled = delivered + refused + waiting",
    "DELETE FROM dead_letters WHERE row_low = 3": "dead rows have their letters",
}


def test_verify_finds_planted_damage(folder: Path, lakeward: Lakeward) -> None:
    (folder / "lake").mkdir()
    (folder / "lake" / "typed").touch()  # so that this sink cannot work, and its parcels wait
    lakeward("run", "p.yaml", "--once", code=1)
    assert lakeward("verify", "p.yaml")["ok"]
    state, spool = folder / ".lakeward" / "p" / "state.db", folder / ".lakeward" / "p" / "spool"
    whole = state.read_bytes()
    for damage, check in DAMAGE.items():
        with closing(sqlite3.connect(state)) as connection:
            connection.execute(damage)
            connection.commit()
        assert wrong(lakeward) == [check]
        state.write_bytes(whole)
    for file, content in {sorted(spool.iterdir())[0]: b"PAR1", spool / "nobody.parquet": b""}.items():
        before = file.read_bytes() if file.exists() else None
        file.write_bytes(content)
        assert wrong(lakeward) == ["spooled files that nobody waits for" if before is None else "spooled files are as they were written"]
        file.unlink() if before is None else file.write_bytes(before)
    assert lakeward("verify", "p.yaml")["ok"]
    assert "has not run yet" in lakeward("verify", "p.yaml", "--state-dir", "nowhere", code=1)
