"""The real program and a store that is mended while it runs; an independent client reads what the store has."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path

import duckdb
import pytest
from s3_server import ALONE, S3Server

from commands import lakeward, running, stop, wait_until

BATCH = 50
YAML = """
name: network
source: {use: sqlite, path: sensor.db}
sinks:
  raw: {use: s3, prefix: raw, BUCKET, timeout: 0.5s}
  copy: {use: s3, prefix: copy, BUCKET, timeout: 0.5s, compression: zstd}
batch: {rows: 50, wait: 50ms}
""".replace("BUCKET", "bucket: '${BUCKET}', endpoint_url: '${STORE}'")
Rows = Counter[tuple[object, ...]]


def write_rows(folder: Path, count: int) -> None:
    database = sqlite3.connect(folder / "sensor.db")
    with database:
        database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT, sensor_id TEXT, temperature REAL)")
        rows = [
            (n, f"2026-01-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z", f"s{n % 3}", n % 97 + n / 7) for n in range(1, count + 1)
        ]
        database.executemany("INSERT INTO readings VALUES (?, ?, ?, ?)", rows)
    database.close()


def in_source(folder: Path) -> Rows:
    database = sqlite3.connect(folder / "sensor.db")
    rows = database.execute("SELECT id, timestamp, sensor_id, temperature FROM readings").fetchall()
    database.close()
    return Counter(rows)


def in_store(s3: S3Server, bucket: str, sink: str, folder: Path) -> Rows:
    """Read back by DuckDB, from files that an independent client downloads from the store itself."""
    target = folder / "downloaded" / sink
    target.mkdir(parents=True)
    for number, content in enumerate(s3.objects(bucket, f"{sink}/").values()):
        (target / f"{number}.parquet").write_bytes(content)
    return Counter(duckdb.sql(f"SELECT id, timestamp, sensor_id, temperature FROM '{target}/*.parquet'").fetchall())


def environment(store: str, bucket: str, folder: Path) -> dict[str, str]:
    return ALONE | {"STORE": store, "BUCKET": bucket, "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials")}


def give_credentials(folder: Path, key: str, secret: str) -> None:
    (folder / "new").write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    (folder / "new").replace(folder / "credentials")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(YAML)
    return tmp_path


def test_what_a_human_mends_is_found_without_a_restart(folder: Path, s3: S3Server) -> None:
    write_rows(folder, 200)
    bucket = "made-while-it-waits"
    known = environment(s3.url, bucket, folder)
    give_credentials(folder, s3.access_key_id, "wrong-and-long-enough")
    log = folder / "log"

    def told(code: str) -> bool:
        return code in log.read_text()

    with running(folder, 0.2, **known) as process:
        wait_until(lambda: told("SignatureDoesNotMatch"), process, folder)
        give_credentials(folder, s3.access_key_id, s3.secret_access_key)
        wait_until(lambda: told("NoSuchBucket"), process, folder)
        s3.client().create_bucket(Bucket=bucket)
        wait_until(lambda: len(s3.objects(bucket)) == 2 * 200 // BATCH, process, folder)
        stop(process)
    assert in_store(s3, bucket, "raw", folder) == in_store(s3, bucket, "copy", folder) == in_source(folder)
    lines = [line for line in log.read_text().splitlines() if "SignatureDoesNotMatch" in line or "NoSuchBucket" in line]
    for line in lines:
        assert "check access_key_id" in line or "make the bucket, or correct `bucket`" in line


def test_once_says_in_one_line_what_to_mend_and_keeps_the_rows(folder: Path, s3: S3Server) -> None:
    write_rows(folder, 200)
    bucket = "made-after-the-first-run"
    known = environment(s3.url, bucket, folder)
    give_credentials(folder, s3.access_key_id, s3.secret_access_key)
    ran = lakeward(folder, "run", "pipeline.yaml", "--once", "--json", code=1, **known)
    assert json.loads(ran.stdout)["sinks"]["raw"]["waiting"] == 200
    assert ran.stderr.splitlines()[-1].startswith("lakeward: sink ")
    assert "404 NoSuchBucket: The specified bucket does not exist; make the bucket, or correct `bucket`" in ran.stderr.splitlines()[-1]
    s3.client().create_bucket(Bucket=bucket)
    ran = lakeward(folder, "run", "pipeline.yaml", "--once", "--json", **known)
    assert json.loads(ran.stdout)["sinks"]["raw"]["waiting"] == 0
    assert in_store(s3, bucket, "raw", folder) == in_store(s3, bucket, "copy", folder) == in_source(folder)
