"""Stores that know `If-None-Match`, refuse it, or take no notice of it: the sink finds out by itself, once, and says so."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest
from faultproxy import FaultProxy

from lakeward import Refused, Retry
from lakeward.testing import make_parcel

pytestmark = pytest.mark.one_python

READINGS = pa.record_batch({"city": ["London", "Oslo"], "id": [1, 2]})
KEY = "lake/raw/s-0123abcd-0000-0000000001.parquet"


def parcel_of(tmp_path, sequence=1):
    return make_parcel(tmp_path / "spool", READINGS, sequence=sequence)


@pytest.fixture
def run(sink_of, tmp_path):
    """As the kernel does it: a sink with a folder in the state."""

    @contextmanager
    def run(**options):
        with closing(sink_of(**options)) as sink:
            sink.keep_in(tmp_path / "state")
            yield sink

    return run


def known(tmp_path):
    return json.loads((tmp_path / "state/s3.json").read_text())["known"]


@pytest.fixture
def proxy(s3):
    with FaultProxy(s3.url) as proxy:
        yield proxy


class Careless(BaseHTTPRequestHandler):
    """Keeps objects and what is said of them, and writes over them whatever the condition is. `objects` is for all of its kind."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[bytes, dict[str, str]]]
    requests: list[str]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.objects[self.path[1:]] = body, {name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-meta-")}
        self._say(200, ETag='"1"')

    def do_HEAD(self) -> None:
        if found := self.objects.get(self.path[1:]):
            self._say(200, size=len(found[0]), ETag='"1"', **found[1])
        else:
            self._say(404)

    def do_DELETE(self) -> None:
        del self.objects[self.path[1:]]
        self._say(204)

    def _say(self, status: int, size: int = 0, **headers: str) -> None:
        self.requests.append(self.command)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def careless() -> Iterator[tuple[str, type[Careless]]]:
    class Store(Careless):
        objects, requests = {}, []

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Store
        server.shutdown()
        thread.join()


def told(caplog):
    return [record.getMessage().removeprefix("s3://lake: the store ") for record in caplog.records if record.name == "lakeward.s3"]


def test_one_that_takes_no_notice_is_asked_for_each_object_from_then_on(run, careless, tmp_path, caplog):
    url, store = careless
    asked = "it is asked for each object before that is written"
    with run(bucket="lake", endpoint_url=url) as sink:
        for sequence in (1, 2, 2):
            there = sink.deliver(parcel_of(tmp_path, sequence)).details["already_there"]
    assert there is True
    assert store.requests == ["PUT", "PUT", "HEAD", "PUT", "HEAD"]
    assert told(caplog) == [f"ignores If-None-Match; {asked}"]
    caplog.clear()
    store.requests.clear()
    with run(bucket="lake", endpoint_url=url) as sink:
        sink.deliver(parcel_of(tmp_path, 3))
        with pytest.raises(Refused, match="is there already with other content"):
            sink.deliver(make_parcel(tmp_path / "other", READINGS.slice(1)))
    assert store.requests == ["HEAD", "PUT", "HEAD"]
    assert told(caplog) == [f"has no conditional writes, or ignores them; {asked}"], "each run says it"
    assert store.objects[KEY][0] == (parcel_of(tmp_path).path).read_bytes()


def test_one_that_refuses_them_is_asked_from_the_start_by_the_next_process(s3, run, tmp_path, caplog):
    with FaultProxy(s3.url, lacks="If-None-Match") as proxy:
        counts = []
        for sequence in (1, 2):
            with run(endpoint_url=proxy.url) as sink:
                proxy.counts.clear()
                sink.deliver(parcel_of(tmp_path, sequence))
                counts.append(proxy.counts["ok"])
    assert counts == [3, 2], "PUT, refused; HEAD, PUT; and then HEAD, PUT"


def test_whether_the_store_keeps_what_is_there_is_seen_once_for_each_place(run, proxy, tmp_path):
    sizes = []
    for sequence, prefix in enumerate(["raw", "raw", "other", "other"], 1):
        with run(prefix=prefix, endpoint_url=proxy.url) as sink:
            proxy.counts.clear()
            sink.deliver(parcel_of(tmp_path, sequence))
            sizes.append(proxy.counts["ok"])
    assert sizes == [2, 1, 2, 1]
    assert known(tmp_path) == {"conditional": True}


def test_an_answer_that_is_lost_meanwhile_says_it_too(run, proxy, tmp_path):
    proxy.script("ok", "reset_after")
    with run(endpoint_url=proxy.url) as sink:
        with pytest.raises(Retry):
            sink.deliver(parcel_of(tmp_path))
        assert sink.deliver(parcel_of(tmp_path)).details["already_there"] is True
    assert known(tmp_path) == {"conditional": True}


def test_doctor_says_it_before_anything_is_delivered(s3, sink_of, careless):
    url, store = careless
    doubt = "; the store has no conditional writes, or ignores them: it is asked for each object before that is written"
    assert sink_of(bucket="lake", endpoint_url=url).try_out() == f"wrote and removed an object in s3://lake/raw{doubt}"
    assert store.objects == {}
    with FaultProxy(s3.url, lacks="If-None-Match") as proxy:
        assert sink_of(endpoint_url=proxy.url).try_out().endswith(doubt)
    assert "conditional" not in sink_of().try_out()
