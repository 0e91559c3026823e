"""Parts, partitions, buckets from templates, encryption: what the sink `s3` does beyond one object for one parcel."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from faultproxy import FaultProxy
from s3_server import ALONE, S3Server

from lakeward import OptionError, Parcel, Refused, Rejected, Retry
from lakeward.secrets import Secret
from lakeward.testing import make_parcel
from lakeward_plugins.aws import upload
from lakeward_plugins.sinks.s3 import S3Sink, writing

CITIES = pa.record_batch({"_row": range(1, 7), "city": ["London", "å b/c", None, "London", "..", ""], "n": range(6)})
LARGE = pa.record_batch({"noise": [os.urandom(1_000_000) for _ in range(12)]})
NAME = "s-0123abcd-0000-0000000001.parquet"


def parcel_of(tmp_path: Path, rows: pa.RecordBatch = CITIES, **token: Any) -> Parcel:
    return make_parcel(tmp_path / "spool", rows, **token)


# -- in parts ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve megabytes are three parts: S3 takes none below five."""
    monkeypatch.setattr(writing, "LARGE", 8 << 20)
    monkeypatch.setattr(writing, "PART", 5 << 20)


def uploads(s3: S3Server, bucket: str) -> list[Any]:
    return s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])


def test_a_large_file_goes_in_parts_and_arrives_whole_and_once(s3, bucket, sink_of, tmp_path, small_parts):
    parcel = parcel_of(tmp_path, LARGE)
    with FaultProxy(s3.url) as proxy:
        assert [sink_of(endpoint_url=proxy.url).deliver(parcel).details["already_there"] for _ in range(2)] == [False, True]
        assert proxy.counts["ok"] == 1 + 1 + 1 + 3 + 1 + 1 + 1, (
            "HEAD, list, begin, three parts, HEAD, complete; and one HEAD the second time"
        )
    assert s3.objects(bucket) == {f"raw/{NAME}": parcel.path.read_bytes()}
    assert s3.client().head_object(Bucket=bucket, Key=f"raw/{NAME}")["Metadata"] == {"sha256": parcel.sha256}
    assert uploads(s3, bucket) == []


def test_whichever_request_of_an_upload_fails_nothing_is_left_and_the_next_attempt_ends_it(s3, bucket, sink_of, tmp_path, small_parts):
    """HEAD, list, begin, three parts, HEAD, complete: each is reset before, and loses its answer after, the work."""
    for sequence, (place, fault) in enumerate(
        [(place, fault) for place in (2, 3, 5, 6, 7) for fault in ("reset_before", "reset_after")], 1
    ):
        parcel = parcel_of(tmp_path, LARGE, sequence=sequence)
        with FaultProxy(s3.url) as proxy:
            sink = sink_of(endpoint_url=proxy.url)
            proxy.script(*["ok"] * place, fault)
            with pytest.raises(Retry):
                sink.deliver(parcel)
            assert sink.deliver(parcel).details["already_there"] is (place == 7 and fault == "reset_after")
        assert uploads(s3, bucket) == []
        assert s3.objects(bucket, f"raw/{parcel.token.name}") == {f"raw/{parcel.token.name}.parquet": parcel.path.read_bytes()}


def test_who_may_not_list_is_told_403_of_what_is_not_there_and_goes_on(s3, bucket, sink_of, tmp_path, small_parts):
    """So S3 answers without s3:ListBucket, which the sink does not ask for."""
    with FaultProxy(s3.url) as proxy:
        proxy.script("403", *["ok"] * 5, "403")
        assert sink_of(endpoint_url=proxy.url).deliver(parcel_of(tmp_path, LARGE)).details["already_there"] is False
        proxy.script("403", *["ok"] * 5, "403", "ok", "ok", "403")  # the last three: complete, it is there; give up; HEAD
        if s3.like_amazon:
            with pytest.raises(Refused, match="the store answered 403"):
                sink_of(endpoint_url=proxy.url).deliver(parcel_of(tmp_path, LARGE))
    assert (len(s3.objects(bucket)), uploads(s3, bucket)) == (1, [])


def test_other_content_under_the_name_is_refused_before_anything_is_sent(s3, bucket, sink_of, tmp_path, small_parts):
    sink_of().deliver(make_parcel(tmp_path / "other", CITIES))
    with pytest.raises(Refused, match="is there already with other content"):
        sink_of().deliver(parcel_of(tmp_path, LARGE))
    assert uploads(s3, bucket) == []


def test_of_uploads_at_once_the_second_to_complete_finds_the_first(s3, bucket, sink_of, tmp_path, small_parts, monkeypatch):
    parcel, sink, other = parcel_of(tmp_path, LARGE), sink_of(), sink_of()
    real, begun = writing.Bucket._give_up_older, []

    def in_between(self: writing.Bucket, key: str) -> None:
        if not begun:
            begun.append(True)
            other.deliver(parcel)
        real(self, key)

    monkeypatch.setattr(writing.Bucket, "_give_up_older", in_between)
    assert sink.deliver(parcel).details["already_there"] is True
    assert (len(s3.objects(bucket)), uploads(s3, bucket)) == (1, [])


def test_what_a_killed_process_left_of_an_upload_is_given_up(s3, bucket, sink_of, tmp_path, small_parts):
    client = s3.client()
    for key in (f"raw/{NAME}", f"raw/{NAME}.other"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    sink_of().deliver(parcel_of(tmp_path, LARGE))
    assert [upload["Key"] for upload in uploads(s3, bucket)] == [f"raw/{NAME}.other"]


def test_a_store_without_conditional_writes_takes_parts_too(s3, bucket, sink_of, tmp_path, small_parts):
    with FaultProxy(s3.url, lacks="If-None-Match") as proxy:
        sink = sink_of(endpoint_url=proxy.url)
        assert [sink.deliver(parcel_of(tmp_path, LARGE)).details["already_there"] for _ in range(2)] == [False, True]
    assert (len(s3.objects(bucket)), uploads(s3, bucket)) == (1, [])


# -- partitions --------------------------------------------------------------------------------------------------------


def test_one_parcel_gives_one_object_for_each_partition_and_then_the_list_of_them(s3, bucket, sink_of, tmp_path):
    sink = sink_of(partition_by=["city"], compression="zstd")
    parcel = parcel_of(tmp_path, encoding=sink.encoding)
    receipt = sink.deliver(parcel)
    manifest = f"raw/_manifests/{parcel.token.name}.json"
    assert receipt.location == f"s3://{bucket}/{manifest}"
    objects = s3.objects(bucket)
    folders = ["city=_x_", "city=_x2E_.", "city=_xC3__xA5__x20_b_x2F_c", "city=London", "city=__HIVE_DEFAULT_PARTITION__"]
    assert sorted(objects) == sorted([*(f"raw/{folder}/{NAME}" for folder in folders), manifest])
    listed = json.loads(objects.pop(manifest))
    assert (listed["parcel"], listed["sha256"], listed["rows"]) == (str(parcel.token), parcel.sha256, 6)
    assert {entry["key"]: entry["rows"] for entry in listed["objects"]} == {
        key: pq.read_table(io.BytesIO(content)).num_rows for key, content in objects.items()
    }
    assert pq.read_table(io.BytesIO(objects[f"raw/city=London/{NAME}"])).to_pydict() == {"n": [0, 3]}
    assert pq.read_metadata(io.BytesIO(objects[f"raw/city=London/{NAME}"])).row_group(0).column(0).compression == "ZSTD"


def test_duckdb_and_polars_read_the_partitions(s3, bucket, sink_of, tmp_path):
    rows = pa.record_batch({"city": ["London", "Oslo", "London"], "day": [date(2026, 1, 1)] * 3, "on": [True, False, True], "n": [1, 2, 3]})
    sink_of(partition_by=["city", "day", "on"]).deliver(parcel_of(tmp_path, rows))
    for key, content in s3.objects(bucket).items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(content)
    wanted = [("London", date(2026, 1, 1), "true", 1), ("London", date(2026, 1, 1), "true", 3), ("Oslo", date(2026, 1, 1), "false", 2)]
    found = duckdb.sql(
        f"SELECT city, day, lower(\"on\"::VARCHAR), n FROM read_parquet('{tmp_path}/raw/*/*/*/*.parquet', hive_partitioning=true)"
    )
    assert sorted(found.fetchall()) == wanted
    seen = pl.read_parquet(f"{tmp_path}/raw/**/*.parquet", hive_partitioning=True, try_parse_hive_dates=True)
    assert sorted(seen.select("city", "n").rows()) == [("London", 1), ("London", 3), ("Oslo", 2)]


def test_a_parcel_that_is_there_in_part_is_completed(s3, bucket, sink_of, tmp_path):
    """Reset at each of the six objects in turn, before and after the work: at the end all are there once."""
    for sequence, (place, fault) in enumerate([(place, fault) for place in range(6) for fault in ("reset_before", "reset_after")], 1):
        parcel = parcel_of(tmp_path, sequence=sequence)
        with FaultProxy(s3.url) as proxy:
            sink = sink_of(endpoint_url=proxy.url, partition_by=["city"])
            proxy.script(*["ok"] * place, fault)
            with pytest.raises(Retry):
                sink.deliver(parcel)
            assert f"raw/_manifests/{parcel.token.name}.json" not in s3.objects(bucket) or (place, fault) == (5, "reset_after")
            sink.deliver(parcel)
            assert sink.deliver(parcel).details["already_there"] is True
    stored = [content for key, content in s3.objects(bucket).items() if key.endswith(".parquet")]
    assert (len(stored), sum(pq.read_table(io.BytesIO(content)).num_rows for content in stored)) == (12 * 5, 12 * 6)


@pytest.mark.parametrize(("city", "problem"), [("Oslo", Rejected), ("Rome", Refused)])
def test_a_partition_that_is_too_large_is_refused_when_others_are_there(s3, bucket, sink_of, tmp_path, monkeypatch, city, problem):
    """Halves of the parcel would have the rows of the others again, under other names."""
    real = writing.Bucket._write

    def write(self: Any, content: Any) -> None:
        if content.key.startswith(f"raw/city={city}/"):
            raise ClientError({"Error": {"Code": "EntityTooLarge"}, "ResponseMetadata": {"HTTPStatusCode": 413}}, "PutObject")
        real(self, content)

    monkeypatch.setattr(writing.Bucket, "_write", write)
    with pytest.raises(problem, match="the store answered 413"):
        sink_of(partition_by=["city"]).deliver(parcel_of(tmp_path, pa.record_batch({"city": ["Oslo", "Rome"], "n": [1, 2]})))
    assert len(s3.objects(bucket)) == (problem is Refused)


def test_objects_in_folders_of_a_column_that_begins_with_an_underscore_are_shown(bucket, sink_of, tmp_path):
    sink = sink_of(partition_by=["_day"])
    sink.deliver(parcel_of(tmp_path, pa.record_batch({"_day": [date(2026, 1, 31)], "n": [1]})))
    assert sink.stored()[1] == [f"{bucket}/raw/_day=2026-01-31/{NAME}"]


def test_partitions_made_by_another_version_of_the_encoder_are_known_by_their_parcel(s3, bucket, sink_of, tmp_path, monkeypatch):
    parcel = parcel_of(tmp_path)
    sink_of(partition_by=["city"]).deliver(parcel)
    before = s3.objects(bucket)
    assert sink_of(partition_by=["city"], compression="gzip").deliver(parcel).details["already_there"] is True
    assert s3.objects(bucket) == before
    with pytest.raises(Refused, match="is there already with other content"):
        sink_of(partition_by=["city"]).deliver(make_parcel(tmp_path / "other", CITIES.slice(1)))


@pytest.mark.parametrize("columns", [["town"], ["_row"]])
def test_a_column_that_is_not_there_is_refused_beforehand(sink_of, tmp_path, columns):
    sink = sink_of(partition_by=columns)
    with pytest.raises(Refused, match=f"partition_by: the rows have no column '{columns[0]}', only city, n; correct it"):
        sink.probe(CITIES.schema)
    with pytest.raises(Refused, match="partition_by: the rows have no column"):
        sink.deliver(parcel_of(tmp_path))


def test_a_value_that_makes_a_key_too_long_costs_its_own_rows(s3, bucket, sink_of, tmp_path):
    """A key has 1,024 bytes, with the prefix, whose letters may be two of them each, and the name of the file."""
    prefix, columns = "ü" * 100, ["city", "kind"]
    sink = sink_of(prefix=prefix, partition_by=columns)
    left = 1_024 - len(f"{prefix}/city=/kind=/{NAME}".encode())
    rows = {"city": ["a" * 300, "Oslo", "a" * 300], "kind": ["b" * (left - 300), "b", "b" * (left - 299)], "n": [1, 2, 3]}
    with pytest.raises(Rejected, match=r"partition_by: a value is too long for the name of a folder, which may have \d+ letters") as caught:
        sink.deliver(parcel_of(tmp_path, pa.record_batch(rows)))
    assert (caught.value.rows, s3.objects(bucket)) == ((2,), {})
    sink.deliver(parcel_of(tmp_path, pa.record_batch(rows).slice(0, 2)))
    assert sorted(len(key.encode()) for key in s3.objects(bucket) if key.endswith(".parquet"))[-1] == 1_024


ODD = [
    "a/b",
    "..",
    ".",
    "../../up",
    "100%",
    "a=b",
    "a\0b",
    "a b",
    "å",
    "_x_",
    "_x2F_",
    "",
    "__HIVE_DEFAULT_PARTITION__",
    "a\nb",
    "%2F",
    "A",
    "a",
]


def test_odd_values_are_read_back_by_their_rule_and_share_no_object(s3, bucket, sink_of, tmp_path):
    rows = pa.record_batch({"v": [*ODD, None], "n": range(len(ODD) + 1)})
    sink = sink_of(partition_by=["v"])
    sink.deliver(parcel_of(tmp_path, rows))
    found = {}
    for key, content in s3.objects(bucket).items():
        if (steps := key.split("/"))[1] != "_manifests":
            assert len(steps) == 3, key
            name = steps[1].removeprefix("v=")
            plain = re.sub(rb"_x([0-9A-F]{2})_", lambda match: bytes.fromhex(match[1].decode()), name.encode()).decode()
            value = {"_x_": "", "__HIVE_DEFAULT_PARTITION__": None}.get(name, plain)
            (found[value],) = pq.read_table(io.BytesIO(content))["n"].to_pylist()
    assert found == dict(zip(rows["v"].to_pylist(), rows["n"].to_pylist(), strict=True))


def test_text_that_is_not_utf8_costs_its_own_rows(s3, bucket, sink_of, tmp_path):
    """The SQLite source rejects it; another may not, and nor does Arrow."""
    column = pa.array([b"Oslo", b"\xff\xfe", None, b"Oslo", b"\xff\xfe"]).view(pa.string())
    for rows in (column, column.dictionary_encode()):
        with pytest.raises(Rejected, match="partition_by: text that is not UTF-8 cannot name a folder") as caught:
            sink_of(partition_by=["city"]).deliver(parcel_of(tmp_path, pa.record_batch({"city": rows, "n": range(5)})))
        assert (caught.value.rows, s3.objects(bucket)) == ((1, 4), {})


def test_too_many_partitions_are_refused(sink_of, tmp_path):
    rows = pa.record_batch({"id": range(1_001), "n": range(1_001)})
    with pytest.raises(Refused, match="1,001 partitions in one parcel of 1,001 rows, more than 1,000; take a column with fewer values"):
        sink_of(partition_by=["id"]).deliver(parcel_of(tmp_path, rows))


# -- buckets, keys, encryption -----------------------------------------------------------------------------------------


def test_bucket_and_folder_come_from_prefix_type_and_region(s3, sink_of, tmp_path):
    s3.client().create_bucket(Bucket="acme-databricks-raw-us-east-1")
    options = {"bucket_prefix": "acme", "pipeline_type": "raw", "region": "us-east-1", "prefix": "{type}/north"}
    sink = sink_of(bucket="{prefix}-databricks-{type}-{region}", **options)
    assert sink.deliver(parcel_of(tmp_path)).location == f"s3://acme-databricks-raw-us-east-1/raw/north/{NAME}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bucket": "{prefix}-raw"}, r"bucket_prefix: is needed for {prefix} in `bucket`"),
        ({"bucket": "{region}-raw"}, r"region: is needed for {region} in `bucket`"),
        ({"bucket": "{tenant}-raw"}, r"bucket: {tenant} is no field; there are {prefix}, {type}, {region}"),
        ({"bucket": "{0.__class__}-raw"}, r"bucket: {0.__class__} is no field"),
        ({"bucket": "lake-{prefix}", "bucket_prefix": "a/b"}, "bucket: 'lake-a/b' cannot be a bucket"),
        ({"bucket": "lake", "prefix": "{type}/x", "pipeline_type": ".."}, r"prefix: '\.\./x' is not a folder"),
        ({"bucket": "lake", "kms_key_id": "k"}, "kms_key_id: goes with `encryption: aws:kms`"),
        ({"bucket": "lake", "profile": "p", "access_key_id": Secret("a-key", "k"), "secret_access_key": Secret("a-secret", "s")},
         "profile: and `access_key_id` are two ways"),
    ],
)  # fmt: skip
def test_mistakes_in_templates_and_options_are_told(options, message):
    with pytest.raises(OptionError, match=message):
        S3Sink(**options)


@pytest.mark.usefixtures("as_amazon")
@pytest.mark.parametrize("key", ["", "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"])
def test_objects_are_encrypted_as_asked_for(s3, bucket, sink_of, tmp_path, monkeypatch, small_parts, key):
    kind = "aws:kms" if key else "AES256"
    sink = sink_of(encryption=kind, kms_key_id=key)
    sink.deliver(parcel_of(tmp_path))
    sink.deliver(parcel_of(tmp_path, LARGE, sequence=2))
    for name in s3.objects(bucket):
        head = s3.client().head_object(Bucket=bucket, Key=name)
        assert (head["ServerSideEncryption"], head.get("SSEKMSKeyId", "")) == (kind, key)


def test_credentials_come_from_a_profile(s3, sink_of, tmp_path, monkeypatch):
    (tmp_path / "credentials").write_text(
        f"[node]\naws_access_key_id = {s3.access_key_id}\naws_secret_access_key = {s3.secret_access_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    none = {"access_key_id": None, "secret_access_key": None}
    assert sink_of(profile="node", **none).deliver(parcel_of(tmp_path)).details["already_there"] is False
    with pytest.raises(Refused, match=r"ProfileNotFound: The config profile \(other\) could not be found; check the options"):
        sink_of(profile="other", **none).deliver(parcel_of(tmp_path))


# -- kill -9 -----------------------------------------------------------------------------------------------------------

KILLED = """
import os, sys, threading, time, random
from pathlib import Path
from lakeward.components import Parcel, Token
from lakeward.secrets import Secret
from lakeward_plugins.sinks.s3 import S3Sink, writing
writing.LARGE, writing.PART = 8 << 20, 5 << 20
file, sha256, luck, first, bucket, url, key, secret, partition = sys.argv[1:]
keys = {"access_key_id": Secret(key, "x"), "secret_access_key": Secret(secret, "y")}
sink = S3Sink(bucket, "raw", endpoint_url=url, partition_by=partition.split(), **keys)
def die():
    time.sleep(random.Random(int(luck)).uniform(0.3, 1.2))
    os.kill(os.getpid(), 9)
threading.Thread(target=die).start()
for number in range(int(first), 10_000):
    sink.deliver(Parcel(Token("p", "s", "0123abcd", 0, number), Path(file), 6, sha256))
    print(number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.one_python
@pytest.mark.parametrize("kind", ["large", "partitions"])
def test_killed_twenty_times_at_any_moment_each_parcel_is_there_once(s3, bucket, sink_of, tmp_path, kind, small_parts):
    environment = {**os.environ, **ALONE, "PYTHONPATH": os.pathsep.join(sys.path)}
    parcel = parcel_of(tmp_path, LARGE if kind == "large" else CITIES)
    partition, each = ("", 1) if kind == "large" else ("city", 6)
    done = 0
    for luck in range(20):
        arguments = [
            str(parcel.path),
            parcel.sha256,
            str(luck),
            str(done + 1),
            bucket,
            s3.url,
            s3.access_key_id,
            s3.secret_access_key,
            partition,
        ]
        ran = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, check=False, capture_output=True, text=True)
        assert ran.returncode == -9, ran.stderr
        done = int(ran.stdout.split()[-1]) if ran.stdout.split() else done
    sink_of(partition_by=partition.split()).deliver(parcel_of(tmp_path, LARGE if kind == "large" else CITIES, sequence=done + 1))
    pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    assert sum(page["KeyCount"] for page in pages) == each * (done + 1)
    assert uploads(s3, bucket) == []


def test_an_upload_that_is_too_slow_gives_its_parts_up(s3, bucket, sink_of, tmp_path, small_parts, monkeypatch):
    monkeypatch.setattr(upload, "SLOWEST", 1e12)
    sink = sink_of(timeout=timedelta(seconds=0.1))
    monkeypatch.setattr(upload.time, "monotonic", iter(range(0, 1000, 1)).__next__)
    with pytest.raises(Retry, match="the upload is slower than"):
        sink.deliver(parcel_of(tmp_path, LARGE))
    monkeypatch.undo()
    assert (s3.objects(bucket), uploads(s3, bucket)) == ({}, [])
