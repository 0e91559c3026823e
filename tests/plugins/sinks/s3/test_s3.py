from __future__ import annotations

import base64
import io
import logging
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attrs import define, field
from faultproxy import FAULTS, FaultProxy
from s3_server import S3Server

from lakeward import OptionError, Parcel, Refused, Rejected, Retry
from lakeward.secrets import Secret, redact
from lakeward.testing import SinkContract, make_parcel
from lakeward.yamlfile.build import Mistakes, build
from lakeward_plugins.sinks.s3 import S3Sink
from lakeward_plugins.sinks.s3 import writing as module

READINGS = pa.record_batch({"_row": [1, 2, 3], "sensor": ["a", "b", None], "temperature": [20.5, -3.0, float("nan")]})
NAME = "s-0123abcd-0000-0000000001.parquet"


def parcel_of(tmp_path: Path, rows: pa.RecordBatch = READINGS, **token: Any) -> Parcel:
    return make_parcel(tmp_path / "spool", rows, **token)


# -- the contract ------------------------------------------------------------------------------------------------------


class TestS3Sink(SinkContract):
    watched = False  # there are no files to watch: a store shows an object when it has all of it

    @pytest.fixture(autouse=True)
    def at_the_store(self, s3: S3Server, bucket: str, sink_of: Callable[..., S3Sink]) -> None:
        self.s3, self.bucket, self.sink_of = s3, bucket, sink_of

    def make(self, tmp_path: Path) -> S3Sink:
        return self.sink_of()

    def read_back(self, tmp_path: Path) -> pa.Table:
        return self.s3.table(self.bucket, "raw/")


# -- shipping ----------------------------------------------------------------------------------------------------------


def test_ships_the_spooled_file_itself_with_its_sha256(s3, bucket, sink_of, tmp_path):
    parcel = parcel_of(tmp_path)
    receipt = sink_of(prefix="/raw/north/").deliver(parcel)
    assert receipt.location == f"s3://{bucket}/raw/north/{NAME}"
    assert receipt.details == {"bytes": parcel.path.stat().st_size, "already_there": False}
    assert s3.objects(bucket) == {f"raw/north/{NAME}": parcel.path.read_bytes()}
    head = s3.client().head_object(Bucket=bucket, Key=f"raw/north/{NAME}", ChecksumMode="ENABLED")
    assert (head["Metadata"], head["ContentType"]) == ({"sha256": parcel.sha256}, "application/vnd.apache.parquet")
    if s3.like_amazon:  # Ceph keeps none
        assert bytes.fromhex(parcel.sha256) == base64.b64decode(head["ChecksumSHA256"])


def test_without_a_prefix_objects_are_in_the_bucket_itself(s3, bucket, sink_of, tmp_path):
    assert sink_of(prefix="").deliver(parcel_of(tmp_path)).location == f"s3://{bucket}/{NAME}"
    assert list(s3.objects(bucket)) == [NAME]


def test_duckdb_reads_what_was_shipped(s3, bucket, sink_of, tmp_path):
    sink = sink_of(compression="zstd")
    for sequence in (1, 2):
        sink.deliver(parcel_of(tmp_path, sequence=sequence, encoding=sink.encoding))
    for key, content in s3.objects(bucket).items():
        (tmp_path / Path(key).name).write_bytes(content)
    assert duckdb.sql(f"SELECT count(*), count(sensor) FROM '{tmp_path}/*.parquet'").fetchall() == [(6, 4)]


def test_a_file_of_many_pieces_arrives_whole(s3, bucket, sink_of, tmp_path):
    rows = pa.record_batch({"_row": range(3), "noise": [os.urandom(4_000_000) for _ in range(3)]})
    sink_of().deliver(parcel_of(tmp_path, rows))
    assert pq.read_table(io.BytesIO(s3.objects(bucket)[f"raw/{NAME}"])).to_pylist() == rows.select(["noise"]).to_pylist()


# -- once --------------------------------------------------------------------------------------------------------------


def test_the_second_attempt_finds_the_first(s3, bucket, sink_of, tmp_path):
    parcel = parcel_of(tmp_path)
    sink_of().deliver(parcel)
    before = s3.client().head_object(Bucket=bucket, Key=f"raw/{NAME}")["LastModified"]
    assert sink_of().deliver(parcel).details["already_there"] is True
    assert s3.client().head_object(Bucket=bucket, Key=f"raw/{NAME}")["LastModified"] == before


@pytest.mark.parametrize("lacks", ["", "If-None-Match"])
def test_other_content_under_the_same_name_is_refused_and_kept(s3, bucket, sink_of, tmp_path, lacks):
    with FaultProxy(s3.url, lacks=lacks) as proxy:
        sink = sink_of(endpoint_url=proxy.url)
        sink.deliver(parcel_of(tmp_path))
        before = s3.objects(bucket)
        with pytest.raises(Refused, match=rf"s3://{bucket}/raw/{NAME} is there already with other content; give this sink a prefix"):
            sink.deliver(make_parcel(tmp_path / "other", READINGS.slice(1)))
    assert s3.objects(bucket) == before


def test_of_sinks_that_write_one_name_at_once_exactly_one_wins(s3, bucket, sink_of, tmp_path):
    sinks = [sink_of() for _ in range(6)]
    for sequence in range(1, 11):
        parcels = [make_parcel(tmp_path / f"{number}", READINGS.slice(number // 2), sequence=sequence) for number in range(6)]
        with ThreadPoolExecutor(6) as pool:
            attempts = [pool.submit(sink.deliver, parcel) for sink, parcel in zip(sinks, parcels, strict=True)]
        refusals = [attempt.exception() for attempt in attempts]
        assert Counter(type(refusal) for refusal in refusals) == {type(None): 2, Refused: 4}  # two have the same content
        assert sum(not attempt.result().details["already_there"] for attempt in attempts if not attempt.exception()) == 1


def test_an_object_of_somebody_else_is_not_taken_for_delivered(s3, bucket, sink_of, tmp_path):
    parcel = parcel_of(tmp_path)
    for metadata in ({}, {"sha256": parcel.sha256}):  # the second is what a broken copy leaves
        s3.client().put_object(Bucket=bucket, Key=f"raw/{NAME}", Body=b"mine", Metadata=metadata)
        with pytest.raises(Retry, match=r"is there already, but not with this sha256 and \d+ bytes; if that stays so, move it away"):
            sink_of().deliver(parcel)
        assert s3.objects(bucket) == {f"raw/{NAME}": b"mine"}


def test_a_store_without_conditional_writes_is_told_once(s3, bucket, sink_of, tmp_path, caplog):
    with FaultProxy(s3.url, lacks="If-None-Match") as proxy:
        sink = sink_of(endpoint_url=proxy.url)
        for sequence in (1, 2, 2):
            there = sink.deliver(parcel_of(tmp_path, sequence=sequence)).details["already_there"]
    assert there is True
    assert len(s3.objects(bucket)) == 2
    assert [record.message for record in caplog.records if record.name == "lakeward.s3"] == [
        f"s3://{bucket}: the store has no conditional writes; it is asked for each object before that is written"
    ]


# -- a bad network -----------------------------------------------------------------------------------------------------

DONE_BEFORE = ("reset_after", "hang_after")  # the object was stored, and nobody heard of it


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("slow", "truncated")])
def test_what_the_network_spoils_is_tried_again_and_there_once(s3, bucket, sink_of, tmp_path, fault):
    parcel = parcel_of(tmp_path)
    with FaultProxy(s3.url, hang=30, retry_after=7) as proxy:
        sink = sink_of(endpoint_url=proxy.url, timeout=timedelta(seconds=0.5 if "hang" in fault else 60))
        proxy.script(fault)
        with pytest.raises(Retry, match=rf"^s3://{bucket}/raw/{NAME}: ") as caught:
            sink.deliver(parcel)
        proxy.counts.clear()
        receipt = sink.deliver(parcel) if "hang" not in fault else sink_of(endpoint_url=proxy.url).deliver(parcel)
        assert receipt.details["already_there"] is (fault in DONE_BEFORE)
        assert proxy.counts == {"ok": 2 if fault in DONE_BEFORE else 1}
    assert caught.value.after == (7.0 if fault == "429_wait" else None)
    assert caught.value.throttled is (fault[:3] in ("429", "503"))
    assert s3.objects(bucket) == {f"raw/{NAME}": parcel.path.read_bytes()}


@pytest.mark.filterwarnings("ignore:tzname")  # of a date that is cut short
@pytest.mark.parametrize("script", [("truncated",), ("reset_after", "ok", "truncated")])
def test_an_answer_cut_short_anywhere_is_never_taken_for_more_than_it_says(s3, bucket, sink_of, tmp_path, script):
    """First of a PUT, then of the HEAD after it."""
    outcomes = set()
    with FaultProxy(s3.url, seed=3) as proxy:
        sink = sink_of(endpoint_url=proxy.url)
        for sequence in range(1, 61):
            parcel = parcel_of(tmp_path, sequence=sequence)
            proxy.script(*script)
            while proxy.left:
                try:
                    outcomes.add(sink.deliver(parcel).details["already_there"])
                except Retry:
                    outcomes.add("again")
            sink.deliver(parcel)
            assert s3.objects(bucket, f"raw/{parcel.token.name}") == {f"raw/{parcel.token.name}.parquet": parcel.path.read_bytes()}
    assert {"again", len(script) > 1} <= outcomes


def test_nobody_listening_is_tried_again(sink_of, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Retry, match="EndpointConnectionError: Could not connect"):
        sink_of(endpoint_url=f"http://127.0.0.1:{port}").deliver(parcel_of(tmp_path))


def test_a_name_that_is_not_found_is_tried_again(sink_of, tmp_path, monkeypatch):
    def not_found(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", not_found)
    with pytest.raises(Retry, match="EndpointConnectionError"):
        sink_of(endpoint_url="http://store.local:9000").deliver(parcel_of(tmp_path))


@pytest.fixture
def reader() -> Iterator[tuple[str, threading.Event]]:
    """Answers `100 Continue`, then takes 50 kB every 10 ms, or nothing at all once the event is set."""
    stalled, ended = threading.Event(), threading.Event()

    def read() -> None:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(30)
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" if connection.recv(5000) else b"")
            while not ended.wait(0.01):
                try:
                    if not stalled.is_set() and not connection.recv(50_000):
                        return
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=read)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", stalled
        ended.set()
        thread.join()


@pytest.mark.parametrize("stands_still", [True, False])
def test_an_upload_that_stands_still_or_crawls_is_given_up(sink_of, tmp_path, monkeypatch, reader, stands_still):
    url, stalled = reader
    rows = pa.record_batch({"_row": [1], "noise": [os.urandom(40_000_000)]})  # more than sockets hold on their own
    if stands_still:
        stalled.set()
    monkeypatch.setattr("lakeward_plugins.aws.upload.SLOWEST", 1e12)
    waits = {"connect_timeout": timedelta(seconds=0.3 if stands_still else 30), "timeout": timedelta(seconds=30 if stands_still else 0.3)}
    started = time.monotonic()
    with pytest.raises(Retry, match=r"ConnectionClosedError|ReadTimeoutError"):
        sink_of(endpoint_url=url, **waits).deliver(parcel_of(tmp_path, rows))
    assert time.monotonic() - started < 20


# -- what stores say ---------------------------------------------------------------------------------------------------


@define
class Store:
    """Answers every request so."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(factory=dict)
    requests: list[str] = field(factory=list)
    url: str = ""

    def says(self, status: int, code: str, message: str = "no way", **headers: str) -> None:
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}
        self.body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>" if code else ""


@pytest.fixture
def server() -> Iterator[tuple[Store, ThreadingHTTPServer]]:
    store = Store()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            store.requests.append(self.command)
            self.send_response(store.status)
            for name, value in store.headers.items():
                self.send_header(name, value)
            body = b"" if self.command == "HEAD" else store.body.encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_HEAD = do_GET = answer  # noqa: N815  # names that the library asks for

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.handle_error = lambda *_: None  # type: ignore[method-assign]  # handshakes that fail are part of the tests
        yield store, listener


@pytest.fixture
def store(server: tuple[Store, ThreadingHTTPServer]) -> Iterator[Store]:
    store, listener = server
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    store.url = f"http://127.0.0.1:{listener.server_port}"
    yield store
    listener.shutdown()
    thread.join()


AGAIN = [
    (409, "ConditionalRequestConflict", False), (409, "OperationAborted", False), (500, "InternalError", False), (503, "SlowDown", True),
    (503, "ServiceUnavailable", True), (403, "RequestTimeTooSkewed", False), (400, "RequestTimeout", False), (400, "IncompleteBody", False),
    (400, "BadDigest", False), (408, "", False), (425, "", False), (429, "", True), (502, "", False), (504, "", False),
]  # fmt: skip
REFUSED = [
    (403, "InvalidAccessKeyId", "check access_key_id, secret_access_key and session_token"),
    (403, "SignatureDoesNotMatch", "check access_key_id, secret_access_key and session_token"),
    (400, "ExpiredToken", "check access_key_id, secret_access_key and session_token"),
    (401, "", "check access_key_id, secret_access_key and session_token"),
    (403, "AccessDenied", "that they may s3:PutObject and s3:GetObject there"),
    (404, "NoSuchBucket", "make the bucket, or correct `bucket`"),
    (400, "AuthorizationHeaderMalformed", "set `region` to that of the bucket"),
    (301, "PermanentRedirect", "set `region` to that of the bucket"),
    (400, "InvalidArgument", "check the options of this sink"),
    (405, "MethodNotAllowed", "check the options of this sink"),
]


@pytest.mark.parametrize(("status", "code", "throttled"), AGAIN)
def test_what_passes_is_tried_again_by_the_kernel_and_by_nobody_else(store, sink_of, tmp_path, status, code, throttled):
    store.says(status, code, Retry_After="12")
    with pytest.raises(Retry, match=rf"the store answered {status}") as caught:
        sink_of(endpoint_url=store.url).deliver(parcel_of(tmp_path))
    assert (caught.value.throttled, store.requests) == (throttled, ["PUT"])
    assert caught.value.after == (None if status == 403 else 12.0)


@pytest.mark.parametrize(("status", "code", "todo"), REFUSED)
def test_what_a_human_must_mend_is_refused_in_one_line(store, sink_of, tmp_path, status, code, todo):
    store.says(status, code, "no\n\u202eway")
    with pytest.raises(Refused, match=rf"the store answered {status}.*{todo}") as caught:
        sink_of(endpoint_url=store.url).deliver(parcel_of(tmp_path))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("status", "code"), [(400, "EntityTooLarge"), (413, "")])
def test_too_large_a_parcel_is_rejected_so_that_it_is_halved(store, sink_of, tmp_path, status, code):
    store.says(status, code)
    with pytest.raises(Rejected, match=f"the store answered {status}"):
        sink_of(endpoint_url=store.url).deliver(parcel_of(tmp_path))


def test_a_store_that_lacks_more_than_conditional_writes_is_refused(store, sink_of, tmp_path):
    store.says(501, "NotImplemented")
    with pytest.raises(Refused, match=r"501.*it lacks what this sink needs"):
        sink_of(endpoint_url=store.url).deliver(parcel_of(tmp_path))


@pytest.mark.parametrize(("status", "body"), [(200, "<html>Welcome to our hotel</html>"), (200, ""), (204, "")])
def test_a_captive_portal_is_no_store(store, sink_of, tmp_path, status, body):
    store.status, store.body = status, body
    with pytest.raises(Retry, match="does not say that the object is stored"):
        sink_of(endpoint_url=store.url).deliver(parcel_of(tmp_path))


def test_an_object_that_is_there_and_gone_is_tried_again(store, sink_of, tmp_path, monkeypatch):
    store.says(412, "PreconditionFailed")
    real = module.Bucket.has

    def gone(*arguments: Any, **options: Any) -> bool:
        store.says(404, "")
        return real(*arguments, **options)

    monkeypatch.setattr(module.Bucket, "has", gone)
    with pytest.raises(Retry, match="was there a moment ago and is gone"):
        sink_of(endpoint_url=store.url).deliver(parcel_of(tmp_path))
    assert store.requests == ["PUT", "HEAD"]


def test_an_endless_answer_makes_a_short_message(store, sink_of, tmp_path):
    store.says(400, "InvalidArgument", "x" * 100_000)
    with pytest.raises(Refused) as caught:
        sink_of(endpoint_url=store.url).deliver(parcel_of(tmp_path))
    assert len(str(caught.value)) < 500


def test_a_certificate_that_nobody_signed_is_refused(server, sink_of, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    _, listener = server
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_certificate(tmp_path))
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with pytest.raises(Refused, match="certificate is not trusted: self-signed certificate; check endpoint_url and certificates"):
            sink_of(endpoint_url=f"https://127.0.0.1:{listener.server_port}").deliver(parcel_of(tmp_path))
    finally:
        listener.shutdown()
        thread.join()


def own_certificate(tmp_path: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "own.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(encoding) + private)
    return tmp_path / "own.pem"


# -- credentials -------------------------------------------------------------------------------------------------------


def test_write_and_read_under_the_prefix_is_all_it_needs(s3, bucket, sink_of, tmp_path):
    key, secret = s3.user("s3:PutObject", "s3:GetObject", resource=f"arn:aws:s3:::{bucket}/raw/*")
    sink = sink_of(access_key_id=Secret(key, "env:K"), secret_access_key=Secret(secret, "env:S"))
    for already_there in (False, True):
        assert sink.deliver(parcel_of(tmp_path)).details["already_there"] is already_there
    assert sink.probe(READINGS.schema).endswith("only the first parcel will show, as these credentials may not list the bucket")


def test_who_may_not_write_is_refused(s3, bucket, sink_of, tmp_path):
    key, secret = s3.user("s3:GetObject", "s3:ListBucket")
    with pytest.raises(Refused, match=r"403 AccessDenied.*may s3:PutObject and s3:GetObject there"):
        sink_of(access_key_id=Secret(key, "env:K"), secret_access_key=Secret(secret, "env:S")).deliver(parcel_of(tmp_path))
    assert s3.objects(bucket) == {}


def test_left_out_credentials_come_from_the_environment_and_are_masked_from_then_on(s3, sink_of, tmp_path, monkeypatch):
    sink = sink_of(access_key_id=None, secret_access_key=None)
    with pytest.raises(Refused, match="NoCredentialsError: Unable to locate credentials; check the options of this sink and the AWS"):
        sink.deliver(parcel_of(tmp_path))
    key, secret = s3.user("s3:*")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    assert sink.deliver(parcel_of(tmp_path)).details["already_there"] is False
    assert redact(f"{key} {secret}") == "*** ***"


def test_credentials_that_are_mended_are_found_without_a_restart(s3, sink_of, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    entry = "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
    (tmp_path / "credentials").write_text(entry.format(s3.access_key_id, "wrong-and-long-enough"))
    sink, parcel = sink_of(access_key_id=None, secret_access_key=None), parcel_of(tmp_path)
    with pytest.raises(Refused, match="SignatureDoesNotMatch"):
        sink.deliver(parcel)
    (tmp_path / "credentials").write_text(entry.format(s3.access_key_id, s3.secret_access_key))
    assert sink.deliver(parcel).details["already_there"] is False


@pytest.mark.usefixtures("as_amazon")
def test_the_libraries_do_not_tell_what_they_send_even_when_all_is_logged(s3, sink_of, tmp_path, caplog):
    before = {name: logging.getLogger(name).level for name in ("boto3", "botocore", "urllib3")}
    try:
        for name in before:
            logging.getLogger(name).setLevel(logging.NOTSET)
        with caplog.at_level(logging.DEBUG):
            sink = sink_of(session_token=Secret("canary-session-token", "env:T"))
            with pytest.raises((Refused, Retry)):  # the server knows no such token
                sink.deliver(parcel_of(tmp_path))
            sink_of().deliver(parcel_of(tmp_path))
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
    assert not [record for record in caplog.records if record.name.startswith(tuple(before)) and record.levelno < logging.INFO]
    for value in ("canary-session-token", s3.secret_access_key, s3.access_key_id):
        assert value not in caplog.text + repr(sink)


# -- options -----------------------------------------------------------------------------------------------------------


def test_probe_writes_nothing_and_says_where(s3, bucket, sink_of):
    assert sink_of().probe(READINGS.schema) == f"would write Parquet objects (snappy, 3 columns) to s3://{bucket}/raw"
    assert s3.objects(bucket) == {}
    with pytest.raises(
        Refused, match=r"s3://no-such-bucket/raw: the store answered 404 NoSuchBucket.*make the bucket, or correct `bucket`"
    ):
        sink_of(bucket="no-such-bucket").probe(READINGS.schema)
    with pytest.raises(Refused, match=r"403 SignatureDoesNotMatch.*check access_key_id"):
        sink_of(secret_access_key=Secret("wrong-and-long-enough", "env:S")).probe(READINGS.schema)


SECRET = Secret("canary-of-options", "env:X")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bucket": "a"}, "bucket: 'a' cannot be a bucket"),
        ({"bucket": "lake/raw"}, "bucket: 'lake/raw' cannot be a bucket"),
        ({"prefix": "a//b"}, "prefix: 'a//b' is not a folder"),
        ({"prefix": "a/../b"}, "prefix: 'a/../b' is not a folder"),
        ({"prefix": "ü" * 257}, "prefix: has more than 512 bytes"),
        ({"prefix": "."}, "prefix: '.' is not a folder"),
        ({"prefix": "a\nb"}, r"prefix: 'a\\nb' is not a folder"),
        ({"endpoint_url": "minio:9000"}, "endpoint_url: is not an address such as https://host:9000"),
        ({"endpoint_url": "https://me:canary@host"}, "endpoint_url: is not an address"),
        ({"endpoint_url": "https://host/?key=canary"}, "endpoint_url: is not an address"),
        ({"access_key_id": SECRET}, "access_key_id: and `secret_access_key` go together"),
        ({"secret_access_key": SECRET}, "access_key_id: and `secret_access_key` go together"),
        ({"session_token": SECRET}, "access_key_id: and `secret_access_key` go together"),
        ({"timeout": timedelta(0)}, "timeout: expected at least 0.1 s"),
    ],
)
def test_mistakes_in_options_are_told_without_a_secret(options, message):
    with pytest.raises(OptionError, match=message) as caught:
        S3Sink(**{"bucket": "lake", **options})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("options", [{"prefix": "a/b=1/ü.c/..d"}, {"bucket": "arn:aws:s3:eu-west-1:123456789012:accesspoint/lake"}])
def test_odd_but_right_options_are_taken(options):
    with closing(S3Sink(**{"bucket": "lake", **options})) as sink:
        assert sink.prefix == options.get("prefix", "")


def test_options_come_from_yaml():
    given = {"bucket": "lake", "region": "eu-central-1", "access_key_id": SECRET, "secret_access_key": SECRET, "timeout": "2m"}
    sink = build(S3Sink, {**given, "compression": "zstd", "row_key": True, "inserted_at": "at"}, Path())
    assert (sink.timeout, sink.encoding.compression, sink.encoding.row_key, sink.encoding.inserted_at) == (
        timedelta(minutes=2),
        "zstd",
        True,
        "at",
    )
    with pytest.raises(Mistakes, match="required, but missing"):
        build(S3Sink, {}, Path())
