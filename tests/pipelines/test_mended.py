"""Something elsewhere is wrong, somebody mends it, and the run that is going on delivers what waited, without a restart."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import deltalake
import pytest
from cosmos_server import CosmosServer, documents
from cosmosdb.documents import KEY
from databricks_server import DatabricksServer
from s3_server import ALONE, S3Server

import commands

ROWS = 40
WRONG = {"s3": "wrong-secret-of-s3", "databricks": "wrong-token-of-databricks", "cosmos": "d3JvbmcgbG9uZyBrZXkgb2YgY29zbW9z"}


def ids(rows: list[dict[str, Any]], name: str) -> list[int]:
    return sorted(row[name] for row in rows)


@pytest.mark.slow
@pytest.mark.one_python
def test_secrets_in_files_that_were_wrong(
    tmp_path: Path, s3: S3Server, databricks: DatabricksServer, cosmos: CosmosServer, request: pytest.FixtureRequest
) -> None:
    commands.write_readings(tmp_path, ROWS)
    bucket, schema, container = s3.bucket(), databricks.schema(), cosmos.container("/timestamp")
    database = container.container_link.split("/")[1]
    for name, wrong in WRONG.items():
        (tmp_path / name).write_text(wrong)
    in_s3 = f"endpoint_url: '{s3.url}', region: us-east-1, access_key_id: '${{env:ID}}', secret_access_key: '${{file:{tmp_path}/s3}}'"
    (tmp_path / "p.yaml").write_text(f"""
name: mended
source: {{use: sqlite, path: sensor.db}}
sinks:
  objects: {{use: s3, bucket: {bucket}, prefix: raw, {in_s3}}}
  table: {{use: delta, path: 's3://{bucket}/table', {in_s3}}}
  brick: {{use: databricks, host: '{databricks.url}', http_path: {databricks.http_path}, token: '${{file:{tmp_path}/databricks}}',
    table: {schema}.readings, volume: {schema}.staged, create: true}}
  items: {{use: cosmos, endpoint: '{cosmos.url}', key: '${{file:{tmp_path}/cosmos}}', database: {database}, container: readings,
    partition_key: /timestamp}}
""")
    running = commands.start(tmp_path, "run", "p.yaml", **ALONE, ID=s3.access_key_id)
    request.addfinalizer(running.kill)

    def told() -> str:
        ran = commands.start(tmp_path, "health", "p.yaml", "--json")
        return "".join(ran.communicate(timeout=60))

    def complaints() -> int:
        text = told()
        assert not any(wrong in text for wrong in WRONG.values())
        return sum(f"sink {name}: " in text for name in ("objects", "table", "brick", "items"))

    commands.until(lambda: complaints() == 4)
    for name, right in {"s3": s3.secret_access_key, "databricks": databricks.token, "cosmos": KEY}.items():
        (tmp_path / name).write_text(f"{right}\n")

    def all_there() -> bool:
        found = json.loads(commands.lakeward(tmp_path, "status", "p.yaml", "--json").stdout)
        return {sink["delivered"] for sink in found["sinks"].values()} == {ROWS} and len(found["sinks"]) == 4

    commands.until(all_there, 90)
    running.send_signal(signal.SIGTERM)
    said = commands.ended(running, 143).stderr
    assert not any(text in said for text in (*WRONG.values(), s3.secret_access_key, databricks.token, KEY))
    options = {"aws_endpoint_url": s3.url, "aws_allow_http": "true", "aws_region": "us-east-1"}
    options |= {"aws_access_key_id": s3.access_key_id, "aws_secret_access_key": s3.secret_access_key}
    table = deltalake.DeltaTable(f"s3://{bucket}/table", storage_options=options).to_pyarrow_table()
    stored = [s3.table(bucket, "raw/").to_pylist(), table.to_pylist(), databricks.table(f"{schema}.readings").to_pylist()]
    assert [ids(rows, "id") for rows in stored] == [list(range(1, ROWS + 1))] * 3
    assert ids(documents(container), "row_id") == list(range(1, ROWS + 1))
