from __future__ import annotations

import base64
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import time, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from faultproxy import FaultProxy

from lakeward import OptionError, Parcel, Refused, Retry
from lakeward.secrets import Secret, redact
from lakeward.testing import SinkContract, make_parcel
from lakeward_plugins.aws import upload
from lakeward_plugins.sinks.delta import DeltaSink

READINGS = pa.record_batch({"_row": [1, 2, 3], "sensor": ["a", "b", None], "temperature": [20.5, -3.0, float("nan")]})


def parcel_of(tmp_path: Path, sequence: int = 1, rows: pa.RecordBatch = READINGS, **token: Any) -> Parcel:
    return make_parcel(tmp_path / "spool", rows, sequence=sequence, **token)


@pytest.mark.slow
@pytest.mark.one_python
class TestDeltaSinkInS3(SinkContract):
    watched = False  # there are no files to watch: a version is there when its object is

    @pytest.fixture(autouse=True)
    def at_the_store(self, sink_of, table_in) -> None:
        self.sink_of, self.table_in = sink_of, table_in

    def make(self, tmp_path: Path) -> DeltaSink:
        return self.sink_of()

    def read_back(self, tmp_path: Path) -> pa.Table:
        table = self.table_in()
        seen = table.to_pyarrow_table() if table else pa.table({})
        place = seen.schema.get_field_index("a_time64")  # Delta has no time of day: it is text
        if place < 0:
            return seen
        times = [None if text is None else time.fromisoformat(text) for text in seen["a_time64"].to_pylist()]
        return seen.set_column(place, "a_time64", pa.array(times, pa.time64("us")))


def test_the_spooled_file_itself_is_the_data_file(s3, bucket, sink_of, table_in, tmp_path):
    sink = sink_of()
    for sequence in (1, 2, 2):
        sink.deliver(parcel_of(tmp_path, sequence))
    parcel = parcel_of(tmp_path, 2)
    objects = s3.objects(bucket, "lake/t/")
    key = f"lake/t/{parcel.token.name}-{parcel.sha256[:16]}.parquet"
    assert objects[key] == parcel.path.read_bytes()
    head = s3.client().head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    assert base64.b64decode(head["ChecksumSHA256"]).hex() == parcel.sha256  # sent along, so that the store looks at what arrives
    assert len([key for key in objects if key.endswith(".parquet")]) == 2
    table = table_in()
    assert table.transaction_version("lakeward/0123abcd/p/s/0") == 2 << 31
    assert duckdb.from_arrow(table.to_pyarrow_dataset()).aggregate("count(*), count(sensor)").fetchall() == [(6, 4)]


def test_partitions_with_odd_names_are_found_again_also_after_compaction(sink_of, table_in, tmp_path):
    sink = sink_of(partition_by=["city"], compact_every=10)
    rows = pa.record_batch({"city": ["å b/c%", None, "rome"], "a": [1, 2, 3]})
    for sequence in range(1, 15):
        sink.deliver(parcel_of(tmp_path, sequence, rows))
    table = table_in()
    found = table.to_pyarrow_table().group_by("city").aggregate([("a", "sum"), ("a", "count")]).to_pylist()
    assert {row["city"]: (row["a_sum"], row["a_count"]) for row in found} == {"å b/c%": (14, 14), None: (28, 14), "rome": (42, 14)}
    assert any("compacted-" in uri for uri in table.file_uris())


def test_columns_are_added_and_windows_replaced_as_in_a_folder(sink_of, table_in, tmp_path):
    sink = sink_of(new_columns="add", upsert_by=["window_id"], revision="revision")
    for sequence, (window, revision, more) in enumerate(
        [("a", 1, {}), ("b", 1, {"mean": [0.5]}), ("a", 2, {}), ("b", 1, {"mean": [9.9]})], 1
    ):
        sink.deliver(parcel_of(tmp_path, sequence, pa.record_batch({"window_id": [window], "revision": [revision], **more})))
    rows = sorted(tuple(row.values()) for row in table_in().to_pyarrow_table().to_pylist())
    assert rows == [("a", 2, None), ("b", 1, 0.5)]


@pytest.mark.slow
@pytest.mark.one_python
def test_files_that_no_version_needs_and_the_old_log_go(s3, bucket, sink_of, tmp_path):
    sink = sink_of(compact_every=2, history=timedelta(0))
    sink._upkeep.keep_removed = timedelta(0)  # less than the option allows, as nobody else writes
    s3.client().put_object(Bucket=bucket, Key="lake/t/s-0123abcd-0000-0000000001-left.parquet", Body=b"of an attempt that was killed")
    for sequence in range(1, 22):
        sink.deliver(parcel_of(tmp_path, sequence))
    keys = [key.removeprefix("lake/t/") for key in s3.objects(bucket)]
    data = [key for key in keys if key.endswith(".parquet") and not key.startswith("_delta_log")]
    assert not any(key.endswith("left.parquet") for key in data)
    assert len(data) < 10
    assert len([key for key in keys if key.endswith(".json")]) < 25


# -- many writers ------------------------------------------------------------------------------------------------------

WRITERS = int(os.environ.get("WRITERS", "10"))
"""`WRITERS=50 pytest ...` takes some minutes."""


@pytest.mark.slow
@pytest.mark.one_python
def test_writers_at_once_to_one_table_never_conflict(sink_of, table_in, tmp_path):
    """They begin together, before the table is there, and compact it all the time; no `deliver` raises."""
    begin = threading.Barrier(WRITERS)

    def write(number: int) -> list[bool]:
        sink = sink_of(compact_every=10)
        begin.wait()
        parcels = [parcel_of(tmp_path / str(number), sequence, sink=f"w{number}") for sequence in (1, 2, 3)]
        return [bool(sink.deliver(parcel).details["already_there"]) for parcel in parcels]

    with ThreadPoolExecutor(WRITERS) as pool:
        told = [there for each in pool.map(write, range(WRITERS)) for there in each]
    assert told == [False] * 3 * WRITERS
    assert table_in().to_pyarrow_dataset().count_rows() == 3 * WRITERS * 3


def retried(sink: DeltaSink, parcel: Parcel, attempts: int = 40) -> bool:
    for _ in range(attempts):
        try:
            return bool(sink.deliver(parcel).details["already_there"])
        except Retry:
            pass
    raise AssertionError(f"gave up after {attempts} attempts")


# -- what a human must mend --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_what_a_human_must_mend_is_refused_in_one_line(s3, bucket, sink_of, tmp_path, there):
    if there:
        sink_of().deliver(parcel_of(tmp_path))
    reader, secret = s3.user("s3:GetObject", "s3:ListBucket")
    wrong = [
        ({"secret_access_key": Secret("wrong-and-long-enough", "env:S")}, "SignatureDoesNotMatch.*check access_key_id"),
        ({"access_key_id": Secret("AKIAXXXXXXXXXXXXXXXX", "env:S")}, "InvalidAccessKeyId.*check access_key_id"),
        ({"path": "s3://no-such-bucket/t"}, "NoSuchBucket.*make the bucket, or correct `path`"),
        ({"access_key_id": Secret(reader, "r"), "secret_access_key": Secret(secret, "s")}, "AccessDenied.*s3:GetObject, s3:PutObject"),
        ({"access_key_id": None, "secret_access_key": None}, "there are no credentials; check access_key_id"),
    ]
    for options, message in wrong:
        with pytest.raises(Refused, match=message) as caught:
            sink_of(**options).deliver(parcel_of(tmp_path, 2))
        assert str(caught.value).isprintable()
    with pytest.raises(Refused, match=r"s3://.*/none: there is no Delta table; make it, correct `path`, or leave out `create: false`"):
        sink_of(path=f"s3://{bucket}/none", create=False).deliver(parcel_of(tmp_path, 2))


def test_nobody_listening_is_tried_again(sink_of, tmp_path):
    with pytest.raises(Retry, match="Connection refused"):
        sink_of(endpoint_url="http://127.0.0.1:9").deliver(parcel_of(tmp_path))


def test_an_upload_that_is_too_slow_is_given_up_and_tried_again(sink_of, table_in, tmp_path, monkeypatch):
    sink = sink_of(timeout=timedelta(seconds=0.1))
    sink.deliver(parcel_of(tmp_path))
    with monkeypatch.context() as slow:
        slow.setattr(upload, "SLOWEST", 1e12)
        slow.setattr(upload.time, "monotonic", iter(range(1000)).__next__)
        with pytest.raises(Retry, match="the upload is slower than"):
            sink.deliver(parcel_of(tmp_path, 2))
    assert table_in().to_pyarrow_dataset().count_rows() == 3
    assert sink_of().deliver(parcel_of(tmp_path, 2)).details["already_there"] is False


def test_credentials_of_a_profile_are_found_and_mended_without_a_restart(s3, sink_of, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    entry = "[node]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
    (tmp_path / "credentials").write_text(entry.format(s3.access_key_id, "wrong-and-long-enough"))
    sink = sink_of(access_key_id=None, secret_access_key=None, profile="node")
    with pytest.raises(Refused, match="SignatureDoesNotMatch"):
        sink.deliver(parcel_of(tmp_path))
    (tmp_path / "credentials").write_text(entry.format(s3.access_key_id, s3.secret_access_key))
    assert sink.deliver(parcel_of(tmp_path)).details["already_there"] is False
    assert redact(f"{s3.access_key_id} {s3.secret_access_key}") == "*** ***"


def test_a_store_that_has_no_conditional_writes_is_refused(s3, bucket, sink_of, tmp_path):
    with FaultProxy(s3.url, lacks="If-None-Match") as proxy, pytest.raises(Refused, match=r"501.*the store has no conditional writes"):
        sink_of(endpoint_url=proxy.url).deliver(parcel_of(tmp_path))
    assert [key for key in s3.objects(bucket) if key.endswith(".parquet")] == []


@pytest.mark.parametrize("by", ["option", "AWS_ENDPOINT_URL"])
def test_a_store_that_ignores_the_condition_is_refused(alone, monkeypatch, by):
    """It says 200 to each write, as some do."""

    class Yes(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("ETag", '"0"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Yes) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        if by == "AWS_ENDPOINT_URL":
            monkeypatch.setenv(by, url)
        keys = {"access_key_id": Secret("k" * 8, "k"), "secret_access_key": Secret("s" * 8, "s")}
        sink = DeltaSink("s3://lake/t", endpoint_url=url if by == "option" else "", **keys)
        try:
            with pytest.raises(Refused, match="s3://lake/t: the store has no conditional writes, without which two"):
                sink._place.prepare()
        finally:
            sink.close()
            server.shutdown()
            thread.join()


def test_the_libraries_do_not_tell_what_they_send_even_when_all_is_logged(s3, sink_of, tmp_path, caplog):
    before = {name: logging.getLogger(name).level for name in ("boto3", "botocore", "urllib3")}
    try:
        for name in before:
            logging.getLogger(name).setLevel(logging.NOTSET)
        with caplog.at_level(logging.DEBUG):
            sink = sink_of()
            sink.deliver(parcel_of(tmp_path))
            sink.deliver(parcel_of(tmp_path, 2))
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
    for value in (s3.secret_access_key, s3.access_key_id):
        assert value not in caplog.text + repr(sink) + repr(sink._place)


def test_an_address_with_a_password_in_it_is_a_mistake_that_does_not_tell_it():
    with pytest.raises(OptionError, match="endpoint_url: is not an address") as caught:
        DeltaSink("s3://lake/t", endpoint_url="https://me:hidden@minio.local:9000")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("path", ["s3://lake", "s3://lake/", "gs://lake/t", "s3://lake/a b", "s3://lake/a%20b", "s3://lake//t"])
def test_an_address_that_cannot_be_a_table_is_a_mistake(path):
    with pytest.raises(OptionError, match=r"path: .* is neither a folder nor like s3://bucket/table"):
        DeltaSink(path)
