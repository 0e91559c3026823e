"""Options that say where rows go are changed while a parcel is there in part: its rows are there once, or the sink stops and says why."""

from __future__ import annotations

import io
from contextlib import closing, contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faultproxy import FaultProxy

from lakeward import Refused, Retry
from lakeward.secrets import Secret
from lakeward.testing import make_parcel

pytestmark = pytest.mark.one_python

CITIES = pa.record_batch({"city": ["London", "Oslo", "Rome", "London"], "kind": [1, 2, 1, 2], "id": [1, 2, 3, 4]})
CHANGES = [
    ({}, {"partition_by": ["city"]}),
    ({"partition_by": ["city"]}, {}),
    ({"partition_by": ["city"]}, {"partition_by": ["kind"]}),
    ({"partition_by": ["city"]}, {"partition_by": ["city"], "prefix": "other"}),
    ({}, {"prefix": "other"}),
]


@pytest.fixture
def proxy(s3):
    with FaultProxy(s3.url) as proxy:
        yield proxy


@pytest.fixture
def run(sink_of, proxy, tmp_path):
    """As the kernel does it: a sink with a folder in the state."""

    @contextmanager
    def run(**options):
        with closing(sink_of(**{"endpoint_url": proxy.url, **options})) as sink:
            sink.keep_in(tmp_path / "state/sinks/s")
            yield sink

    return run


def parcel_of(tmp_path, sequence=1):
    return make_parcel(tmp_path / "spool", CITIES, sequence=sequence)


def ids(s3, bucket):
    """Of all rows that are anywhere."""
    files = [io.BytesIO(content) for key, content in s3.objects(bucket).items() if key.endswith(".parquet")]
    return sorted(value for file in files for value in pq.read_table(file)["id"].to_pylist())


@pytest.mark.parametrize("ends", ["killed", "stopped"])
@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_a_parcel_that_was_begun_is_ended_where_it_was_begun(s3, bucket, run, proxy, tmp_path, caplog, before, after, ends):
    """At the second object, or after the only one, the answer is lost. Of a process that is killed, nothing but the note is left."""
    with run(**before) as sink:
        proxy.script(*["ok"] * bool(before), *["ok"] * 1, "reset_after") if before else proxy.script("reset_after")
        with pytest.raises(Retry):
            sink.deliver(parcel_of(tmp_path))
        note = (tmp_path / "state/sinks/s/s3.json").read_bytes()
    if ends == "killed":
        (tmp_path / "state/sinks/s/s3.json").write_bytes(note)
    assert ids(s3, bucket), "something is there"
    with run(**after) as sink:
        receipt = sink.deliver(parcel_of(tmp_path))
        assert ids(s3, bucket) == [1, 2, 3, 4]
        assert receipt.location.removeprefix(f"s3://{bucket}/").startswith("raw/")
        assert sink.deliver(parcel_of(tmp_path)).location == receipt.location, "as after a crash before SETTLE"
        other = sink.deliver(parcel_of(tmp_path, 2)).location.removeprefix(f"s3://{bucket}/")
        assert other.startswith(after.get("prefix", "raw"))
        assert ("_manifests" in other) is ("partition_by" in after)
    assert ids(s3, bucket) == [1, 1, 2, 2, 3, 3, 4, 4]
    told = [record.getMessage() for record in caplog.records if record.name == "lakeward.trail"]
    assert [text.partition("{")[0] for text in told] == [
        "s-0123abcd-0000-0000000001 was begun before the options of this sink changed, so it is ended where they led: "
    ] * 2


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_a_parcel_that_was_not_begun_goes_where_the_options_say(s3, bucket, run, proxy, tmp_path, before, after):
    with run(**before) as sink:
        sink.deliver(parcel_of(tmp_path))
        proxy.script("reset_before")
        with pytest.raises(Retry):
            sink.deliver(parcel_of(tmp_path, 2))
    with run(**after) as sink:
        sink.deliver(parcel_of(tmp_path, 2))
    assert ids(s3, bucket) == [1, 1, 2, 2, 3, 3, 4, 4]
    moved = [key for key in s3.objects(bucket) if key.startswith(after.get("prefix", "raw")) and "0000000002" in key]
    assert bool([key for key in moved if "_manifests" in key]) is ("partition_by" in after)


@pytest.mark.usefixtures("as_amazon")
def test_a_place_that_was_wrong_is_corrected_without_a_question(s3, bucket, run, proxy, tmp_path):
    key, secret = s3.user("s3:PutObject", "s3:GetObject", resource=f"arn:aws:s3:::{bucket}/mine/*")
    keys = {"access_key_id": Secret(key, "env:K"), "secret_access_key": Secret(secret, "env:S")}
    for wrong in ({"bucket": "no-such-bucket"}, {"prefix": "yours"}):
        with run(**wrong, **keys) as sink, pytest.raises(Refused, match=r"404 NoSuchBucket|403 AccessDenied"):
            sink.deliver(parcel_of(tmp_path))
    with run(endpoint_url="http://127.0.0.1:9") as sink:
        with pytest.raises(Retry, match="EndpointConnectionError"):
            sink.deliver(parcel_of(tmp_path))
        assert '"parcel": ""' in (tmp_path / "state/sinks/s/s3.json").read_text(), "so a kill does no harm"
    proxy.counts.clear()
    with run(prefix="mine", **keys) as sink:
        sink.deliver(parcel_of(tmp_path))
    assert proxy.counts["ok"] == 2, "the object, and once more to see what the store makes of conditions"
    assert ids(s3, bucket) == [1, 2, 3, 4]


def test_what_cannot_be_seen_stops_the_sink_until_a_person_says_that_nothing_is_there(s3, bucket, run, tmp_path):
    with FaultProxy(s3.url) as gone, run(endpoint_url=gone.url) as sink:
        gone.script("reset_after")
        with pytest.raises(Retry):
            sink.deliver(parcel_of(tmp_path))
    told = r"the options of this sink changed, and whether s-0123abcd-0000-0000000001 is there in part under the old ones cannot be seen: "
    with run(prefix="other") as sink:
        for _ in range(2):
            with pytest.raises(Retry, match=told + r"s3://.*Could not connect.*; if you know that it is not, remove .*s3\.json"):
                sink.deliver(parcel_of(tmp_path))
        assert sink.deliver(parcel_of(tmp_path, 2)).location == f"s3://{bucket}/other/s-0123abcd-0000-0000000002.parquet"
    assert ids(s3, bucket) == [1, 1, 2, 2, 3, 3, 4, 4]
