"""What is larger than 64 MB, as it is: in parts of 16 MB, damaged on the way, written by two at once, killed in the middle."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pyarrow as pa
import pytest
from faultproxy import FaultProxy
from s3_server import ALONE, S3Server

from lakeward import Parcel, Refused, Retry
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.s3 import S3Sink
from lakeward_plugins.sinks.s3.writing import LARGE, PART

pytestmark = [pytest.mark.slow, pytest.mark.one_python]
SIZE = LARGE + (6 << 20)
PARTS = -(-SIZE // PART)
KEY = "raw/s-0123abcd-0000-0000000001.parquet"
DELIVER = """
import sys
from pathlib import Path
from lakeward.components import Parcel, Token
from lakeward.secrets import Secret
from lakeward_plugins.sinks.s3 import S3Sink
file, sha256, bucket, url, key, secret = sys.argv[1:]
sink = S3Sink(bucket, "raw", endpoint_url=url, access_key_id=Secret(key, "x"), secret_access_key=Secret(secret, "y"))
sink.deliver(Parcel(Token("p", "s", "0123abcd", 0, 1), Path(file), 1, sha256))
"""


@pytest.fixture(scope="module")
def parcel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parcel]:
    folder = tmp_path_factory.mktemp("large")
    parcel = make_parcel(folder, pa.record_batch({"noise": [os.urandom(SIZE)]}))
    assert parcel.path.stat().st_size > LARGE
    yield parcel
    parcel.path.unlink()  # pytest keeps folders, and these are large


def uploads(s3: S3Server, bucket: str) -> list[str]:
    return [upload["UploadId"] for upload in s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


def require_there_once(s3: S3Server, bucket: str, parcel: Parcel) -> None:
    (key,) = objects = s3.objects(bucket)
    assert key == KEY
    assert hashlib.sha256(objects[key]).hexdigest() == parcel.sha256
    head = s3.client().head_object(Bucket=bucket, Key=KEY)
    assert head["Metadata"] == {"sha256": parcel.sha256}
    assert head["ETag"].endswith(f'-{PARTS}"'), "so many parts it was"
    assert uploads(s3, bucket) == []


def test_two_that_write_it_at_once_leave_one(s3, bucket, sink_of, parcel):
    """As with a state directory that was copied. Each gives up what the other has begun; one of them ends, and the other finds that."""
    if s3.like_amazon:
        pytest.skip("a real store may tell more, and test_layout.py has the same with smaller parts")
    both = [sink_of(), sink_of()]

    def deliver(sink: S3Sink) -> int:
        for attempt in range(20):
            with suppress(Retry):
                sink.deliver(parcel)
                return attempt
        raise AssertionError("gave up")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(deliver, both))
    require_there_once(s3, bucket, parcel)


def test_other_content_that_comes_in_between_is_kept(s3, bucket, sink_of, parcel, monkeypatch):
    """Nothing was there when it began. At the very end the condition sees it; Ceph 16 ignores that, so shortly before the sink looks."""
    when = "complete_multipart_upload" if s3.like_amazon else "upload_part"
    client = (sink := sink_of())._open().client
    real = getattr(client, when)

    def other_first(**arguments):
        s3.client().put_object(Bucket=bucket, Key=KEY, Body=b"other", Metadata={"sha256": "0" * 64})
        return real(**arguments)

    monkeypatch.setattr(client, when, other_first)
    with pytest.raises(Refused, match="is there already with other content"):
        sink.deliver(parcel)
    assert (s3.objects(bucket), uploads(s3, bucket)) == ({KEY: b"other"}, [])


def test_a_part_that_is_damaged_on_the_way_is_not_taken(s3, bucket, sink_of, parcel, monkeypatch):
    """Its checksum goes along, and is of what was read."""
    if s3.like_amazon:
        pytest.skip("moto does not look at it")
    client = (sink := sink_of())._open().client
    real = client.upload_part

    def damaged(**arguments):
        return real(**{**arguments, "Body": b"x" + arguments["Body"][1:]})

    with monkeypatch.context() as patch:
        patch.setattr(client, "upload_part", damaged)
        with pytest.raises(Retry, match="400 BadDigest"):
            sink.deliver(parcel)
    assert (s3.objects(bucket), uploads(s3, bucket)) == ({}, [])
    sink.deliver(parcel)
    require_there_once(s3, bucket, parcel)


def test_what_a_process_killed_in_the_middle_left_is_given_up_by_the_next_attempt(s3, bucket, sink_of, parcel):
    """No reader sees anything of it; the store keeps its parts, and bills them, until somebody gives them up."""
    with FaultProxy(s3.url, hang=600) as proxy:
        proxy.script("ok", "ok", "ok", "ok", "ok", "hang_after")  # HEAD, list, begin, two parts, and of the third no answer
        arguments = [str(parcel.path), parcel.sha256, bucket, proxy.url, s3.access_key_id, s3.secret_access_key]
        environment = {**os.environ, **ALONE, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen([sys.executable, "-c", DELIVER, *arguments], env=environment)
        while proxy.left or proxy.counts["hang_after"] < 1:
            assert process.poll() is None
        process.kill()
        process.wait()
    assert (s3.objects(bucket), len(uploads(s3, bucket))) == ({}, 1)
    assert sink_of().deliver(parcel).details["already_there"] is False
    require_there_once(s3, bucket, parcel)
