"""`lakeward query` over every sink that can be asked, by the real program. What it says is compared with what was in the source."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from cosmos_server import CosmosServer
from cosmosdb.documents import KEY
from databricks_server import DatabricksServer
from s3_server import ALONE, S3Server

import commands

CITIES = ("Oslo", "Rome", "São /_x41_ L'A\"quila")
ROWS = 90
FILES = """
name: asked
source: {use: sqlite, path: sensor.db}
sinks:
  files: {use: parquet, path: lake/files}
  table: {use: delta, path: lake/table}
  grown: {use: archive, path: lake/grown, file: "{sensor}.parquet"}
batch: {rows: 40}
"""


def write_sensor(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "sensor.db")) as database, database:
        database.execute(
            "CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TIMESTAMP, city TEXT, sensor TEXT, temperature REAL, note BLOB)"
        )
        rows = [(f"2026-01-01T00:{n // 60:02d}:{n % 60:02d}Z", CITIES[n % 3], f"s{n % 2}", n / 4, b"\x00\xff") for n in range(ROWS)]
        database.executemany("INSERT INTO readings (timestamp, city, sensor, temperature, note) VALUES (?, ?, ?, ?, ?)", rows)


def of_city(folder: Path, city: str) -> list[int]:
    """Ids of a city, the newest first."""
    with closing(sqlite3.connect(folder / "sensor.db")) as database:
        return [one for (one,) in database.execute("SELECT id FROM readings WHERE city = ? ORDER BY timestamp DESC", (city,))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sensor(tmp_path)
    (tmp_path / "pipeline.yaml").write_text(FILES)
    return tmp_path


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that is only looked at."""
    folder = tmp_path_factory.mktemp("filled")
    write_sensor(folder)
    (folder / "pipeline.yaml").write_text(FILES)
    run(folder)
    return folder


def asked(folder: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    ran = commands.lakeward(folder, "query", "pipeline.yaml", *arguments, code=code, **environment)
    return ran.stderr if code else ran.stdout


def run(folder: Path, **environment: str) -> None:
    commands.lakeward(folder, "run", "pipeline.yaml", "--once", **environment)


def test_an_empty_lake_can_be_asked(folder):
    found = json.loads(asked(folder, "INFO", "--json"))
    assert [(one["sink"], one["rows"], one["columns"]) for one in found] == [("files", 0, 6), ("table", 0, 6), ("grown", 0, 6)]
    assert json.loads(asked(folder, "--sink", "table", "--count", "--json")) == [{"rows": 0}]


@pytest.mark.slow
def test_files_and_tables_by_the_names_of_their_sinks(filled):
    folder = filled
    found = json.loads(asked(folder, "INFO", "--json"))
    assert [(one["sink"], one["rows"], one["files"], one["version"]) for one in found] == [
        ("files", ROWS, 3, None), ("table", ROWS, 3, 2), ("grown", ROWS, 2, None),
    ]  # fmt: skip
    assert {one["newest"][:19] for one in found} == {"2026-01-01T00:01:29"}
    joined = 'SELECT count(*) AS n, sum(f.temperature = t.temperature) AS same FROM files f JOIN "table" t USING (id)'
    assert json.loads(asked(folder, joined, "--json")) == [{"n": ROWS, "same": ROWS}]
    for sink in ("files", "table", "grown"):
        for city in CITIES[2:]:
            rows = list(csv.DictReader(io.StringIO(asked(folder, "--sink", sink, "--city", city, "--limit", "5", "--csv"))))
            assert [int(row["id"]) for row in rows] == of_city(folder, city)[:5]
            assert {row["note"] for row in rows} == {"00ff"}
            counted = asked(folder, "--sink", sink, "--city", city, "--where", "sensor=s1", "--count", "--json")
            assert json.loads(counted) == [{"rows": 15}]


def test_a_column_that_came_later_is_null_before(folder):
    run(folder)
    with closing(sqlite3.connect(folder / "sensor.db")) as database, database:
        database.execute("ALTER TABLE readings ADD COLUMN humidity REAL")
        database.execute("INSERT INTO readings (timestamp, city, humidity) VALUES ('2026-01-02T00:00:00Z', 'Oslo', 41.5)")
    run(folder, LAKEWARD__sinks__table__path="lake/other", LAKEWARD__sinks__grown__path="lake/other_grown")
    found = json.loads(asked(folder, "SELECT count(*) AS n, count(humidity) AS known FROM data", "--sink", "files", "--json"))
    assert found == [{"n": ROWS + 1, "known": 1}]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP TABLE files", "must be one statement that begins with SELECT"),
        ("DELETE FROM files", "must be one statement that begins with SELECT"),
        ("SELECT 1 FROM files; SELECT 2", "must be one statement"),
        ("COPY (SELECT * FROM files) TO 'out.csv'", "must be one statement"),
        ("ATTACH 'other.db'; SELECT * FROM files", "must be one statement"),
        ("SET memory_limit='1GB'; SELECT * FROM files", "must be one statement"),
        ("SELECT * FROM 'lake/files/*.parquet' JOIN files USING (id)", "disabled"),
        ("SELECT * FROM files, read_csv('/etc/passwd')", "disabled"),
        ("SELECT * FROM files, read_text('http://127.0.0.1:9/x')", "disabled"),
        ("SELECT nothing FROM files", "nothing"),
        ("SELECT 1", "say which by --sink: files, table, grown"),
    ],
)
def test_it_only_reads_and_only_what_the_sinks_have(filled, sql, said):
    before = sorted(path for path in filled.rglob("*") if path.is_file())
    assert said in asked(filled, sql, code=1)
    assert sorted(path for path in filled.rglob("*") if path.is_file()) == before


def test_rows_are_printed_as_they_come_and_whoever_has_read_enough_may_go(filled):
    endless = "SELECT f.id AS n, range FROM files f, range(100000000000)"
    command = f"{sys.executable} -m lakeward query pipeline.yaml '{endless}' --csv | head -2500; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], cwd=filled, capture_output=True, text=True, timeout=100)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert len(set(ran.stdout.splitlines())) == 2500
    found = json.loads(asked(filled, endless, "--limit", "1003", "--json"))
    assert [len(found), list(found[0])] == [1003, ["n", "range"]]


def test_values_that_python_has_not_are_shown(filled):
    odd = (
        "SELECT TIMESTAMP '20000-01-01 00:00:00' AS late, TIMESTAMP_NS '2026-01-01 00:00:00.000000001' AS fine, 12345 AS number FROM files"
    )
    assert json.loads(asked(filled, odd, "--limit", "1", "--json"))[0]["fine"].endswith("000000001")
    assert "12345" in asked(filled, odd, "--limit", "1")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--sink", "nowhere", "--count"], 1, "no sink 'nowhere'; sinks are files, table, grown"),
        (["--count"], 1, "say which sink by --sink: files, table, grown"),
        (["--sink", "files", "--where", "town=Oslo"], 1, "no column 'town'; its columns are id, timestamp, city"),
        (["SELECT 1", "--count"], 2, "make a query; give either them or SQL"),
        (["--where", "Oslo"], 2, "is not COLUMN=TEXT"),
        (["INFO", "--csv", "--json"], 2, "two ways to print the same"),
    ],
)
def test_mistakes_say_what_to_do(filled, arguments, code, said):
    assert said in asked(filled, *arguments, code=code)


def test_partitions_have_their_columns_back(tmp_path):
    write_sensor(tmp_path)
    (tmp_path / "pipeline.yaml").write_text("""
name: asked
source: {use: sqlite, path: sensor.db, columns: [id, timestamp, city, sensor, temperature]}
sinks:
  files: {use: parquet, path: lake, partition_by: [city, sensor]}
  here: {use: sqlite, path: here.db, table: readings}
  there: {use: duckdb, path: there.duckdb, table: readings}
""")
    run(tmp_path)
    joined = (
        "SELECT f.city, count(*) AS n FROM files f JOIN here h USING (id, city, sensor) JOIN there t USING (id, city, sensor) GROUP BY 1"
    )
    assert {row["city"]: row["n"] for row in json.loads(asked(tmp_path, joined, "--json"))} == dict.fromkeys(CITIES, 30)


def test_a_damaged_file_is_named_and_the_other_sinks_are_told(folder):
    run(folder)
    damaged = next((folder / "lake" / "files").glob("*.parquet"))
    damaged.unlink()  # it may be one and the same with the spooled file
    damaged.write_bytes(b"PAR1 cut short")
    found = {one["sink"]: one for one in json.loads(asked(folder, "INFO", "--json"))}
    assert damaged.name in found["files"]["problem"]
    assert found["table"]["rows"] == ROWS


@pytest.mark.slow
def test_objects_in_s3(folder, s3: S3Server):
    bucket = s3.bucket()
    (folder / "pipeline.yaml").write_text(f"""
name: asked
source: {{use: sqlite, path: sensor.db}}
sinks:
  objects: {{use: s3, bucket: {bucket}, prefix: raw/north, endpoint_url: '{s3.url}', region: us-east-1}}
batch: {{rows: 40}}
""")
    keys = ALONE | {"AWS_ACCESS_KEY_ID": s3.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.secret_access_key}
    assert json.loads(asked(folder, "--count", "--json", **keys)) == [{"rows": 0}]
    run(folder, **keys)
    [found] = json.loads(asked(folder, "INFO", "--json", **keys))
    assert (found["rows"], found["files"], found["place"]) == (ROWS, 3, f"s3://{bucket}/raw/north")
    assert json.loads(asked(folder, "SELECT sum(id) AS n FROM objects", "--json", **keys)) == [{"n": ROWS * (ROWS + 1) // 2}]
    some = s3.user("s3:PutObject", "s3:GetObject")
    poor = keys | {"AWS_ACCESS_KEY_ID": some[0], "AWS_SECRET_ACCESS_KEY": some[1]}
    said = asked(folder, "--count", code=1, **poor)
    assert "403" in said
    assert some[1] not in said


@pytest.mark.slow
def test_a_table_in_databricks(folder, databricks: DatabricksServer):
    schema = databricks.schema()
    (folder / "pipeline.yaml").write_text(f"""
name: asked
source: {{use: sqlite, path: sensor.db}}
sinks:
  readings:
    {{use: databricks, host: '{databricks.url}', http_path: {databricks.http_path}, table: {schema}.readings, mode: insert, create: true}}
""")
    token = {"DATABRICKS_TOKEN": databricks.token}
    run(folder, **token)
    [found] = json.loads(asked(folder, "INFO", "--json", **token))
    assert (found["rows"], found["columns"], found["place"], found["newest"][:19]) == (ROWS, 6, f"{schema}.readings", "2026-01-01T00:01:29")
    rows = json.loads(asked(folder, "--city", CITIES[2], "--limit", "4", "--json", **token))
    assert [row["id"] for row in rows] == of_city(folder, CITIES[2])[:4]
    assert json.loads(asked(folder, f"SELECT max(id) AS n FROM {schema}.readings", "--json", **token)) == [{"n": ROWS}]
    assert "must begin with SELECT" in asked(folder, f"DROP TABLE {schema}.readings", code=1, **token)


@pytest.mark.slow
def test_a_container_of_cosmos(folder, cosmos: CosmosServer):
    container = cosmos.container("/city")
    database = container.container_link.split("/")[1]
    (folder / "pipeline.yaml").write_text(f"""
name: asked
source: {{use: sqlite, path: sensor.db}}
transforms:
  plain: {{use: schematize, columns: {{id: bigint, timestamp: timestamp, city: text, temperature: double}}}}
sinks:
  items: {{use: cosmos, endpoint: '{cosmos.url}', key: '${{env:COSMOS_KEY}}', database: {database}, container: readings}}
""")
    key = {"COSMOS_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    run(folder, **key)
    [found] = json.loads(asked(folder, "INFO", "--json", **key))
    assert (found["rows"], found["newest"][:19]) == (ROWS, "2026-01-01T00:01:29")
    rows = json.loads(asked(folder, "--city", CITIES[2], "--limit", "4", "--json", **key))
    assert [row["row_id"] for row in rows] == of_city(folder, CITIES[2])[:4]
    assert json.loads(asked(folder, "--city", "Rome", "--count", "--json", **key)) == [{"rows": 30}]
    assert json.loads(asked(folder, "SELECT VALUE COUNT(1) FROM c", "--json", **key)) == [{"value": ROWS}]
    assert "--sink" not in asked(folder, "DELETE FROM c", code=1, **key)
