# ruff: noqa: E501  # one mistake is one line of the table
"""Wrong configurations: each gives its mistakes in one line each and exit code 2, never a traceback, and touches nothing."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """
name: good
source: {use: sqlite, path: sensor.db}
sinks:
  out: {use: parquet, path: out}
"""

# what is wrong, the whole file (or an addition to GOOD), and what the message must say
MISTAKES = {
    "unknown key": ("sorce: {}\n" + GOOD, r"p.yaml:1:1: sorce: unknown option, did you mean 'source'\?"),
    "unknown component": (GOOD.replace("use: sqlite", "use: sqlit"), r"p.yaml:3:15: source.use: no source named 'sqlit'; did you mean 'sqlite'\?"),
    "unknown plugin": (GOOD.replace("use: parquet", "use: nobody/parquet"), r"sinks.out.use: no sink named 'nobody/parquet'"),
    "unknown option": (GOOD.replace("path: out", "pth: out"), r"p.yaml:5:23: sinks.out.pth: unknown option, did you mean 'path'\?"),
    "missing option": (GOOD.replace(", path: out", ""), r"sinks.out.path: required, but missing"),
    "wrong type": (GOOD.replace("path: out", "path: [out]"), r"p.yaml:5:29: sinks.out.path: expected a path, got a list"),
    "wrong choice": (GOOD.replace("path: out", "path: out, compression: snapy"), r"compression: expected one of .*did you mean 'snappy'\?"),
    "number out of range": (GOOD + "batch: {rows: 0}\n", r"batch.rows: expected from 1 to 1,000,000, got 0"),
    "bad duration": (GOOD + "batch: {wait: soon}\n", r"p.yaml:6:15: batch.wait: expected a duration such as 5s"),
    "unset variable": (GOOD.replace("sensor.db", "'${NOWHERE_SET}'"), r"environment variable NOWHERE_SET is not set and has no default"),
    "unset secret": (
        GOOD + "transforms: {p: {use: gps_fuzz, key: '${env:NOWHERE_SET}'}}\n",
        r"transforms.p.key: .*NOWHERE_SET is not set",
    ),
    "secret in the file": (GOOD + "transforms: {p: {use: gps_fuzz, key: hunter2hunter2hunter2}}\n", r"transforms.p.key: is a secret: do not write it here"),
    "duplicate key": (GOOD + "name: again\n", r"p.yaml:6:1: name: written twice"),
    "cycle": (
        GOOD + "transforms:\n  a: {use: filter, from: b, remove_nulls: [x]}\n  b: {use: filter, from: a, remove_nulls: [x]}\n",
        r"goes round in a circle: (a -> b -> a|b -> a -> b)",
    ),
    "dangling reference": (GOOD.replace("path: out", "path: out, from: cheked"), r"p.yaml:5:40: sinks.out.from: nothing named 'cheked'"),
    "unknown port": (
        GOOD.replace("path: out", "path: out, from: c.vald") + "transforms: {c: {use: physics_validation, rules: [{id: t, kind: range, field: temperature, fail: [0, 50]}]}}\n",
        r"'c' has no port 'vald', did you mean 'valid'\?",
    ),
    "a duration in words": (
        GOOD + "transforms: {c: {use: physics_validation, rules: [{id: t, kind: flatline, field: temperature, suspect: 30 minutes}]}}\n",
        r"rules\[0\].suspect: expected a number or a duration such as 30m or .*got text \('30 minutes'\)",
    ),
    "port left out": (
        GOOD + "transforms: {c: {use: physics_validation, rules: [{id: t, kind: range, field: temperature, fail: [0, 50]}]}}\n",
        r"sinks.out: 'c' has several ports: write `from: c.valid or c.anomalies`|'c' has several ports",
    ),
    "missing column": (GOOD + "transforms: {f: {use: filter, remove_nulls: [temprature]}}\n", r"transforms.f.remove_nulls.*no column 'temprature'"),
    "missing file": (GOOD.replace("sensor.db", "gone.db"), r"p.yaml:3:29: source.path: .*gone.db"),
    "a name that is too long": (GOOD.replace("sensor.db", "x" * 300), r"p.yaml:3:29: source.path: .*xxx does not exist"),
    "a folder name that is too long": (GOOD.replace("sqlite, path: sensor.db", f"parquet, path: {'x' * 300}"), r"p.yaml:3:30: source.path: .*xxx does not exist"),
    "not a database": (GOOD.replace("sensor.db", "p.yaml"), r"p.yaml:3:29: source.path: .*p.yaml"),
    "a folder": (GOOD.replace("sensor.db", "."), r"p.yaml:3:29: source.path: "),
    "no table": (GOOD.replace("sensor.db", "empty.db"), r"source.(path|table): .*no table"),
    "two candidate tables": (GOOD.replace("sensor.db", "two.db"), r"source.*table: .*(one.*two|two.*one)"),
    "misspelt table": (GOOD.replace("sensor.db", "two.db, table: onne"), r"source.table: .*did you mean 'one'\?"),
    "an empty from": (GOOD.replace("path: out", "path: out, from: []"), r"p.yaml:5:40: sinks.out.from: expected node, node.port, or a list of them"),
    "a port taken twice": (GOOD.replace("path: out", "path: out, from: [source, source]"), r"p.yaml:5:40: sinks.out.from: source.main is there twice"),
    "rows taken twice": (
        GOOD.replace("path: out", "path: out, from: [source, b]") + "transforms: {a: {use: filter, remove_nulls: [id]}, b: {use: filter, remove_nulls: [id]}}\n",
        r"p.yaml:5:40: sinks.out.from: b.main has rows of source.main, which is there too, so they would take effect twice",
    ),
    "no columns": (GOOD.replace("sensor.db", "sensor.db, columns: []"), r"p.yaml:3:49: source.columns: names no column"),
    "misspelt time column": (GOOD.replace("sensor.db", "sensor.db, timestamp: timestmp"), r"p.yaml:3:51: source.timestamp: no column 'timestmp'; did you mean 'timestamp'\?"),
    "a value of no member of a union": (
        GOOD + "transforms: {w: {use: window, aggregations: {temperature: maen}}}\n",
        r"aggregations.temperature: expected one of count, .*, or a percentile such as p95; got text \('maen'\), did you mean 'mean'\?",
    ),
    "a window longer than time": (GOOD + "transforms: {w: {use: window, window: {size: 999999999d}, aggregations: {temperature: mean}}}\n", r"transforms.w.window.size: expected at most 3,155,760,000 s"),
    "no sinks": (GOOD.split("sinks")[0], r"sinks: at least one sink is needed"),
    "not YAML": ("name: [", r"p.yaml:\d+:\d+: not valid YAML"),
    "an alias bomb": ("a: &a [x,x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)},*{chr(97 + n)},*{chr(97 + n)},*{chr(97 + n)},*{chr(97 + n)}]\n" for n in range(9)), "more than"),
    "nested too deep": ("a: " + "[" * 2000, "nested deeper than 20 levels"),
    "not a mapping": ("- just\n- a list\n", "expected a mapping"),
    "pipelines without select": (
        "name: n\nsource: {use: sqlite, path: sensor.db}\npipelines:\n  a: {sinks: {o: {use: console}}}\n  b: {sinks: {o: {use: console}}}\n",
        "several graphs and no `select`",
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = "CREATE TABLE {} (id INTEGER PRIMARY KEY, timestamp TEXT, temperature REAL)"
    for file, tables in {"sensor.db": ["readings"], "two.db": ["one", "two"], "empty.db": []}.items():
        database = sqlite3.connect(tmp_path / file)
        for name in tables:
            database.execute(table.format(name))
        database.execute("PRAGMA user_version = 1")
        database.commit()
        database.close()
    return tmp_path


def lakeward(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "NOWHERE_SET"}
    return subprocess.run(
        [sys.executable, "-m", "lakeward", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(what: str, folder: Path) -> None:
    text, message = MISTAKES[what]
    (folder / "p.yaml").write_text(text)
    before = sorted(path.name for path in folder.rglob("*"))
    ran = lakeward(folder, "run", "p.yaml", "--once")
    assert ran.returncode == 2, (ran.stdout, ran.stderr)
    assert re.search(message, ran.stderr), ran.stderr
    assert all(line.startswith("p.yaml") or line.endswith("problems found") for line in ran.stderr.splitlines()), ran.stderr
    assert "Traceback" not in ran.stderr
    assert "hunter2" not in ran.stderr + ran.stdout
    assert not ran.stdout
    assert sorted(path.name for path in folder.rglob("*") if path.suffix not in (".db-shm", ".db-wal")) == before


def test_an_unreadable_database_is_a_mistake_of_its_path(folder: Path) -> None:
    (folder / "p.yaml").write_text(GOOD)
    (folder / "sensor.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    ran = lakeward(folder, "run", "p.yaml", "--once")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.search(r"p.yaml:3:29: source.path: ", ran.stderr), ran.stderr


@pytest.mark.parametrize("command", [["check", "p.yaml"], ["run", "p.yaml", "--once", "--dry-run"]])
def test_what_a_sink_finds_beforehand_is_a_mistake_with_its_place(folder: Path, command: list[str]) -> None:
    (folder / "p.yaml").write_text(
        GOOD.replace("path: out", "path: sensor.db")
        + "  table: {use: delta, path: sensor.db}\n  shown: {use: console, columns: [temprature]}\n  good: {use: parquet, path: good}\n"
    )
    ran = lakeward(folder, *command)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert re.search(r"^p.yaml:5:29: sinks.out.path: .*sensor.db is not a folder", ran.stderr, re.MULTILINE), ran.stderr
    assert re.search(r"^p.yaml:6:29: sinks.table.path: .*sensor.db is not a folder", ran.stderr, re.MULTILINE), ran.stderr
    assert re.search(r"^p.yaml:7:\d+: sinks.shown.columns\S*: no column 'temprature'", ran.stderr, re.MULTILINE), ran.stderr
    assert len(ran.stderr.splitlines()) == 4
    assert not (folder / "good").exists()


def test_check_looks_at_select_too(folder: Path) -> None:
    graphs = "pipelines: {a: {sinks: {o: {use: console}}}, b: {sinks: {o: {use: console}}}}\n"
    (folder / "p.yaml").write_text("name: n\nsource: {use: sqlite, path: sensor.db}\nselect: c\n" + graphs)
    ran = lakeward(folder, "check", "p.yaml")
    assert (ran.returncode, ran.stderr) == (2, "p.yaml:3:9: select: no graph named 'c'; there are a, b\n")
    assert lakeward(folder, "check", "p.yaml", "--select", "b").returncode == 0


def test_a_plugin_name_that_means_nothing_is_told(folder: Path) -> None:
    (folder / "p.yaml").write_text(GOOD + "plugins: {disable: [run_hstory], allow: [nobody]}\n")
    ran = lakeward(folder, "check", "p.yaml")
    assert ran.returncode == 0
    assert "no plugin is named 'run_hstory', did you mean 'run_history'?" in ran.stderr
    assert "no plugin is named 'nobody'; `lakeward plugins list` shows all" in ran.stderr


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(folder: Path) -> None:
    (folder / "p.yaml").write_text(
        "name: n\nsource: {use: sqlite, path: gone.db}\ntransforms:\n  c: {use: physics_validation, profle: seed}\n"
        "sinks:\n  a: {use: parquett, path: a}\n  b: {use: parquet, from: nowhere, path: b, compression: 7}\n"
    )
    ran = lakeward(folder, "check", "p.yaml")
    assert ran.returncode == 2
    lines = [int(line.split(":")[1]) for line in ran.stderr.splitlines()[:-1]]
    assert lines == sorted(lines)
    assert set(lines) == {2, 4, 6, 7}, ran.stderr
    assert ran.stderr.splitlines()[-1] == "6 problems found"


def test_check_gives_problems_as_json(folder: Path) -> None:
    (folder / "p.yaml").write_text(GOOD.replace("path: out", "pth: out"))
    ran = lakeward(folder, "check", "p.yaml", "--json")
    assert ran.returncode == 2
    assert '"path": "sinks.out.pth"' in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument 'FILE'"),
        (["rum", "p.yaml"], "No such command 'rum'"),
        (["run", "p.yaml", "--onec"], "No such option '?--onec'?"),
        (["run", "gone.yaml"], "gone.yaml: cannot be read: No such file or directory"),
        (["run", "p.yaml", "--finish"], "--finish ends the input, so it needs --once"),
        (["run", "p.yaml", "--set", "batch.rows"], "--set batch.rows: expected path.to.key=value"),
        (["run", "p.yaml", "--set", "batch.rows=many"], "--set batch.rows: batch.rows: expected a whole number, got text"),
    ],
)
def test_a_wrong_command_line_is_told_in_words_too(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "p.yaml").write_text(GOOD)
    ran = lakeward(folder, *arguments)
    assert ran.returncode == 2, ran.stderr
    assert re.search(message, ran.stderr), ran.stderr
    assert "Traceback" not in ran.stderr
