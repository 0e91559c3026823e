"""The real program, stopped while a parcel is there in part; its YAML is changed; afterwards every row is there once."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from faultproxy import FaultProxy
from s3_server import ALONE, S3Server

from commands import lakeward, write_readings

pytestmark = [pytest.mark.slow, pytest.mark.one_python]
YAML = """
name: moved
source: {use: sqlite, path: sensor.db}
transforms:
  kinds: {use: sql, query: "SELECT *, temperature::BIGINT % 3 AS kind, temperature::BIGINT % 4 AS other FROM batch"}
sinks:
  raw: {SINK}
batch: {rows: 40}
"""


def write(folder: Path, sink: str) -> None:
    (folder / "moved.yaml").write_text(YAML.replace("SINK", sink))


def test_rows_in_s3_are_there_once_whatever_was_changed(tmp_path, s3: S3Server):
    bucket, counts = s3.bucket(), []
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.secret_access_key, **ALONE}
    write_readings(tmp_path, 100)
    with FaultProxy(s3.url) as proxy:
        common = f"use: s3, bucket: {bucket}, endpoint_url: '{proxy.url}'"
        write(tmp_path, f"{common}, prefix: one, partition_by: [kind]")
        proxy.script(*["ok"] * 7, *["reset_after"] * 200)  # the first object twice, two more and the manifest; then two of the next parcel
        said = lakeward(tmp_path, "run", "moved.yaml", "--once", code=1, **keys).stderr
        assert "stay in the spool for the next run" in said
        proxy.mend()
        before = len(s3.objects(bucket))
        write(tmp_path, f"{common}, prefix: two, partition_by: [other]")
        said = lakeward(tmp_path, "run", "moved.yaml", "--once", **keys).stderr
        assert "was begun before the options of this sink changed, so it is ended where they led" in said
        assert lakeward(tmp_path, "verify", "moved.yaml", **keys).returncode == 0
    for number, (key, content) in enumerate(s3.objects(bucket).items()):
        if key.endswith(".parquet"):
            (tmp_path / f"found-{number}.parquet").write_bytes(content)
            counts.append(key.split("/")[:2])
    assert before < len(counts)
    found = duckdb.sql(f"SELECT temperature FROM '{tmp_path}/found-*.parquet' ORDER BY ALL").fetchall()
    assert found == [(float(number),) for number in range(100)]
    assert {prefix for prefix, _ in counts} == {"one", "two"}
