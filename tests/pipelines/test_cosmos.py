"""Sensors of several cities into Cosmos DB and an archive, by the real program: little throughput, and mistakes."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from azure.cosmos import ContainerProxy
from cosmos_server import CosmosServer, documents
from cosmosdb.documents import KEY

from commands import lakeward, running, stop, wait_until

SENSORS = [("Oslo", "a1"), ("Oslo", "b2"), ("Rome", "c3"), ("São Paulo", "d/4")]
YAML = """
name: cities
source: {use: sqlite, path: data/*/*/sensor_data.db, path_columns: [city, sensor]}
sinks:
  items: {use: cosmos, endpoint: '${COSMOS}', key: '${env:COSMOS_KEY}', database: '${DATABASE}', container: readings, timeout: 0.5s}
  archive: {use: archive, path: archive, max_mb: 0.05}
batch: {rows: BATCH, wait: 50ms}
"""
Rows = Counter[tuple[object, ...]]


def write_rows(folder: Path, each: int) -> None:
    for number, (city, sensor) in enumerate(SENSORS):
        place = folder / "data" / city / sensor.replace("/", "_")
        place.mkdir(parents=True)
        with closing(sqlite3.connect(place / "sensor_data.db")) as database, database:
            database.execute("CREATE TABLE sensor_readings (id INTEGER PRIMARY KEY, timestamp TEXT, temperature REAL, location TEXT)")
            rows = [(f"2026-01-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z", number + n / 7, f"{city} °") for n in range(each)]
            database.executemany("INSERT INTO sensor_readings (timestamp, temperature, location) VALUES (?, ?, ?)", rows)


def in_source(folder: Path) -> Rows:
    found: Rows = Counter()
    for file in folder.glob("data/*/*/sensor_data.db"):
        with closing(sqlite3.connect(file)) as database:
            rows = database.execute("SELECT id, timestamp, temperature, location FROM sensor_readings").fetchall()
        found.update((file.parts[-3], file.parts[-2], *row) for row in rows)
    return found


def in_cosmos(container: ContainerProxy) -> Rows:
    names = ("city", "sensor", "row_id", "timestamp", "temperature", "location")
    return Counter(tuple(item[name] for name in names) for item in documents(container))


def in_archive(folder: Path) -> Rows:
    """Read by DuckDB; the folder and the name say the same as the rows."""
    query = f"SELECT city, sensor, id, timestamp, temperature, location FROM read_parquet('{folder}/archive/*/*.parquet')"
    return Counter(duckdb.sql(query).fetchall())


def environment(url: str, container: ContainerProxy, **more: str) -> dict[str, str]:
    database = container.container_link.split("/")[1]
    return {"COSMOS": url, "COSMOS_KEY": KEY, "DATABASE": database, "NO_PROXY": "127.0.0.1"} | more


def status(folder: Path, known: dict[str, str]) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(lakeward(folder, "status", "pipeline.yaml", "--json", **known).stdout)
    return report


def count(container: ContainerProxy) -> int:
    (found,) = container.query_items("SELECT VALUE COUNT(1) FROM c", enable_cross_partition_query=True)
    return int(found)  # type: ignore[call-overload]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(YAML.replace("BATCH", "50"))
    return tmp_path


@pytest.mark.slow
@pytest.mark.one_python
def test_a_container_with_little_throughput_gets_every_row_once_and_at_its_own_pace(folder: Path, cosmos: CosmosServer) -> None:
    (folder / "pipeline.yaml").write_text(YAML.replace("BATCH", "1000"))
    write_rows(folder, 250)
    container, before = cosmos.container(), cosmos.set(budget=1250)
    ran = lakeward(folder, "run", "pipeline.yaml", "--once", "--json", **environment(cosmos.url, container))
    throttled = cosmos.set()["throttled"] - before["throttled"]
    seconds = json.loads(ran.stdout)["run"]["seconds"]
    print(f"1000 items of 5 units at 1250 units a second: {seconds:.1f} s, {throttled} requests throttled")
    assert in_cosmos(container) == in_source(folder)
    assert 1 <= throttled <= 20  # and not hammered
    assert 2 < seconds < 20  # 4 s of units, of which those of a second or two are there at once
    assert "next attempt" not in ran.stderr  # it waited in its place


@pytest.mark.slow
@pytest.mark.one_python
def test_a_run_that_waits_for_throughput_ends_in_time(folder: Path, cosmos: CosmosServer) -> None:
    (folder / "pipeline.yaml").write_text(YAML.replace("BATCH", "4000"))
    write_rows(folder, 1000)
    container = cosmos.container()
    cosmos.set(budget=300)
    known, before = environment(cosmos.url, container), cosmos.set()["throttled"]
    with running(folder, 0.2, **known) as process:
        wait_until(lambda: cosmos.set()["throttled"] > before, process, folder)
        began = time.monotonic()
        stop(process)
        assert time.monotonic() - began < 10
    cosmos.set(budget=0)
    lakeward(folder, "run", "pipeline.yaml", "--once", **known)
    assert in_cosmos(container) == in_source(folder)


def test_a_row_that_is_never_taken_becomes_a_dead_letter_and_the_others_go_on(folder: Path, cosmos: CosmosServer) -> None:
    write_rows(folder, 30)
    with closing(sqlite3.connect(folder / "data" / "Oslo" / "a1" / "sensor_data.db")) as database, database:
        database.execute("UPDATE sensor_readings SET location = ? WHERE id = 7", ("x" * 2_100_000,))
    container = cosmos.container()
    known = environment(cosmos.url, container)
    lakeward(folder, "run", "pipeline.yaml", "--once", "--json", **known)
    report = status(folder, known)
    assert {name: (sink["delivered"], sink["refused"]) for name, sink in report["sinks"].items()} == {
        "items": (119, 1),
        "archive": (120, 0),
    }
    (letter,) = json.loads(lakeward(folder, "dead-letters", "list", "pipeline.yaml", "--json", **known).stdout)["letters"]
    assert (letter["reason"], letter["detail"]) == ("sink_rejected", "Cosmos DB answered 413: Request size is too large")
    missing = in_source(folder) - in_cosmos(container)
    assert [row[:3] for row in missing] == [("Oslo", "a1", 7)]


@pytest.mark.slow
def test_what_a_human_mends_is_found_without_a_restart(folder: Path, cosmos: CosmosServer) -> None:
    write_rows(folder, 20)
    database, log = f"made-later-{os.getpid()}", folder / "log"
    known = {"COSMOS": cosmos.url, "COSMOS_KEY": KEY, "DATABASE": database, "NO_PROXY": "127.0.0.1"}
    other = "YW5vdGhlciBrZXkgb2YgdGhlIGFjY291bnQ="

    def told(words: str) -> bool:
        return words in log.read_text()

    cosmos.set(keys={other: "all"})
    with running(folder, 0.2, **known) as process:
        wait_until(lambda: told("answered 401: The input authorization token"), process, folder)
        cosmos.set(keys={KEY: "all"}, firewall=True)
        wait_until(lambda: told("answered 403: Request originated from IP"), process, folder)
        cosmos.set(firewall=False)
        wait_until(lambda: told("make the database and the container"), process, folder)
        wrong = cosmos.container("/sensor", database)
        wait_until(lambda: told("the partition key of the container is /sensor, not /city; set `partition_key` to it"), process, folder)
        cosmos.set(keys={KEY: "all"})
        cosmos.client.get_database_client(database).delete_container(wrong.id)
        container = cosmos.container("/city", database)
        wait_until(lambda: count(container) == 80, process, folder)
        stop(process)
    assert in_cosmos(container) == in_archive(folder) == in_source(folder)
    for line in log.read_text().splitlines():
        if "answered 401" in line:
            assert "check `key`, and the clock of this machine" in line
        if "answered 403" in line:
            assert "through the firewall of the account" in line
