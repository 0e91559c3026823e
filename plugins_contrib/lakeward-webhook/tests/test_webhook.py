import base64
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from attrs import define, field, frozen
from lakeward_webhook.sink import WebhookSink

from lakeward import OptionError, Parcel, Refused, Rejected, Retry
from lakeward.secrets import Secret
from lakeward.testing import PluginContract, SinkContract, make_parcel
from lakeward.testing.hostile import TYPES
from lakeward.yamlfile.build import build

TOKEN = "canary-7f3a-secret"


class TestPlugin(PluginContract):
    module = "lakeward_webhook"


# -- a receiver --------------------------------------------------------------------------------------------------------


@define
class Receiver:
    """Keeps each part once, by its key, as the README asks of a receiver. `mishaps` happen to the next requests, one each."""

    kept: dict[str, bytes] = field(factory=dict)
    seen: list[tuple[str, bytes]] = field(factory=list)
    headers: list[dict[str, str]] = field(factory=list)
    mishaps: list[Any] = field(factory=list)
    url: str = ""

    def rows(self) -> list[dict[str, Any]]:
        return [row for body in self.kept.values() for row in json.loads(body)["rows"]]


@frozen
class Mishap:
    """What happens to one request; the part is kept first when `keep`."""

    act: Callable[[BaseHTTPRequestHandler], object]
    keep: bool = False


def answer(status: int, text: str = "", keep: bool = False, **headers: str) -> Mishap:
    """Answer so."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        body = text.encode()
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return Mishap(act, keep)


def hang_up(keep: bool) -> Mishap:
    """Close the connection without an answer: before the part is kept, or after."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)

    return Mishap(act, keep)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            key = self.headers["Idempotency-Key"]
            state.seen.append((key, body))
            state.headers.append(dict(self.headers))
            mishap = state.mishaps.pop(0) if state.mishaps else answer(200, "thanks", keep=True)
            if mishap.keep:
                state.kept.setdefault(key, body)
            mishap.act(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # clients that hang up are part of the tests
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/hook?key=of-mine"
        yield state
        server.shutdown()
        thread.join()


READINGS = pa.record_batch({"_row": range(1, 8), "sensor": [f"s{row}" for row in range(7)], "temperature": [row / 4 for row in range(7)]})


def parcel_of(tmp_path: Path, rows: pa.RecordBatch = READINGS, **token: Any) -> Parcel:
    return make_parcel(tmp_path / "spool", rows, **token)


@pytest.fixture
def sink_of(receiver: Receiver) -> Iterator[Callable[..., WebhookSink]]:
    made: list[WebhookSink] = []

    def make(**options: Any) -> WebhookSink:
        made.append(WebhookSink(options.pop("url", receiver.url), **options))
        return made[-1]

    yield make
    for sink in made:
        sink.close()


# -- the contract ------------------------------------------------------------------------------------------------------


class TestWebhookSink(SinkContract):
    ordered = True
    watched = False

    @pytest.fixture(autouse=True)
    def listen(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def make(self, tmp_path: Path) -> WebhookSink:
        return WebhookSink(self.receiver.url, batch=3)

    def read_back(self, tmp_path: Path) -> pa.Table:
        rows = self.receiver.rows()
        return pa.table({name: from_json(name, [row[name] for row in rows]) for name in (rows[0] if rows else [])})


def from_json(name: str, values: Sequence[Any]) -> pa.Array:
    """The column `a_<type>` of the contract, from what the README says that JSON holds."""
    kind = TYPES.get(name.removeprefix("a_"), pa.nulls(0)).type
    if pa.types.is_binary(kind):
        return pa.array([None if value is None else base64.b64decode(value) for value in values])
    if pa.types.is_time(kind):
        return pa.array([None if value is None else time.fromisoformat(value) for value in values], kind)
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return pa.array(values, pa.string()).cast(kind)
    return pa.array([float(value) for value in values] if name == "a_not_finite" else values)


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_posts_parts_of_a_batch_each_under_its_key(receiver, sink_of, tmp_path):
    parcel = parcel_of(tmp_path)
    receipt = sink_of(batch=3).deliver(parcel)
    token = f"p/s-0123abcd-0000-0000000001/{parcel.sha256[:16]}"
    assert list(receiver.kept) == [f"{token}/0-2", f"{token}/3-5", f"{token}/6-6"]
    assert json.loads(receiver.kept[f"{token}/6-6"]) == {
        "pipeline": "p",
        "sink": "s",
        "token": "s-0123abcd-0000-0000000001",
        "part": "6-6",
        "rows": [{"sensor": "s6", "temperature": 1.5}],
    }
    assert receipt.location == receiver.url.partition("/hook")[0]
    assert receipt.details == {"parts": 3, "rows": 7}


def test_values_that_json_has_not_are_sent_as_text(receiver, sink_of, tmp_path):
    rows = pa.record_batch(
        {
            "utc": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "Europe/Oslo")),
            "local": pa.array([0], pa.timestamp("us")),
            "took": pa.array([1500], pa.duration("ms")),
            "raw": pa.array([b"\x00\xff"]),
            "nested": pa.array([[float("nan"), float("-inf"), 1.5]]),
        }
    )
    sink_of().deliver(parcel_of(tmp_path, rows))
    assert receiver.rows() == [
        {
            "utc": "2023-11-14T22:13:20.123456789Z",
            "local": "1970-01-01T00:00:00.000000",
            "took": "1500ms",
            "raw": "AP8=",
            "nested": ["NaN", "-Infinity", 1.5],
        }
    ]


def test_row_key_is_sent_when_asked_for(receiver, sink_of, tmp_path):
    sink = sink_of(row_key=True)
    sink.deliver(parcel_of(tmp_path, encoding=sink.encoding))
    assert [row["_row"] for row in receiver.rows()] == [1, 2, 3, 4, 5, 6, 7]


def test_connection_is_kept_between_parts(receiver, sink_of, tmp_path):
    sink = sink_of(batch=1)
    sink.deliver(parcel_of(tmp_path))
    pool = sink._client._transport._pool
    assert len(receiver.seen) == 7
    assert len(pool.connections) == 1


def test_odd_names_of_pipelines_are_quoted_in_the_key(receiver, sink_of, tmp_path):
    parcel = parcel_of(tmp_path, pipeline="größe 1\n")
    sink_of().deliver(parcel)
    assert list(receiver.kept) == [f"gr%C3%B6%C3%9Fe%201%0A/s-0123abcd-0000-0000000001/{parcel.sha256[:16]}/0-6"]


def test_other_rows_under_the_same_token_have_other_keys(receiver, sink_of, tmp_path):
    """They come from a copy of the state directory, or from an old one that was restored."""
    for rows in (READINGS.slice(0, 3), READINGS.slice(3, 3)):
        sink_of().deliver(parcel_of(tmp_path, rows))
    assert [row["sensor"] for row in receiver.rows()] == [f"s{row}" for row in range(6)]


# -- retries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mishap", [hang_up(keep=False), hang_up(keep=True), answer(500, keep=True), answer(503), answer(429)])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_retry_sends_identical_parts_and_every_row_takes_effect_once(receiver, sink_of, tmp_path, mishap, before):
    parcel = parcel_of(tmp_path)
    receiver.mishaps = [answer(200, keep=True)] * before + [mishap]
    with pytest.raises(Retry):
        sink_of(batch=3).deliver(parcel)
    assert len(receiver.seen) == before + 1, "later parts were sent after one failed"
    sink_of(batch=3).deliver(parcel)
    assert [row["sensor"] for row in receiver.rows()] == [f"s{row}" for row in range(7)]
    assert len(set(receiver.seen)) == 3, "a key came with two bodies"


def test_another_batch_size_makes_other_keys_so_that_no_row_is_taken_for_another(receiver, sink_of, tmp_path):
    parcel = parcel_of(tmp_path)
    receiver.mishaps = [answer(200, keep=True), answer(500)]
    with pytest.raises(Retry):
        sink_of(batch=2).deliver(parcel)
    sink_of(batch=4).deliver(parcel)
    assert {row["sensor"] for row in receiver.rows()} == {f"s{row}" for row in range(7)}


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({"Retry_After": "17"}, 17.0),
        ({"Retry_After": "9" * 500}, 3600.0),
        ({}, None),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": format_datetime(datetime(2001, 1, 1, tzinfo=UTC), usegmt=True)}, 0.0),
    ],
)
def test_waits_as_long_as_the_receiver_asks(receiver, sink_of, tmp_path, headers, after):
    receiver.mishaps = [answer(429, **headers)]
    with pytest.raises(Retry, match="answered 429 to rows 0-6") as caught:
        sink_of().deliver(parcel_of(tmp_path))
    assert caught.value.after == after


def test_date_to_wait_for_is_read_by_the_clock_of_the_receiver(receiver, sink_of, tmp_path):
    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.date_time_string = lambda *_: format_datetime(datetime(2001, 1, 1, tzinfo=UTC), usegmt=True)
        answer(503, Retry_After=format_datetime(datetime(2001, 1, 1, 0, 1, 30, tzinfo=UTC), usegmt=True)).act(handler)

    receiver.mishaps = [Mishap(act)]
    with pytest.raises(Retry) as caught:
        sink_of().deliver(parcel_of(tmp_path))
    assert caught.value.after == 90.0


def test_silence_is_retried_after_the_timeout(receiver, sink_of, tmp_path):
    release = threading.Event()
    receiver.mishaps = [Mishap(lambda handler: release.wait(5))]
    try:
        with pytest.raises(Retry, match="ReadTimeout"):
            sink_of(timeout=timedelta(milliseconds=50)).deliver(parcel_of(tmp_path))
    finally:
        release.set()


def test_nobody_listening_is_retried(sink_of, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Retry, match=rf"^http://127.0.0.1:{port}: ConnectError"):
        sink_of(url=f"http://127.0.0.1:{port}/").deliver(parcel_of(tmp_path))


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "todo"),
    [(401, "check the token"), (403, "check the token and what it allows"), (404, "check the url"), (413, "set `batch` to fewer rows")],
)
def test_what_a_human_must_mend_is_refused(receiver, sink_of, tmp_path, status, todo):
    receiver.mishaps = [answer(status, "no\nway")]
    with pytest.raises(Refused, match=rf"answered {status} to rows 0-6: no way; {todo}$"):
        sink_of().deliver(parcel_of(tmp_path))


@pytest.mark.parametrize("status", [400, 418, 422])
def test_what_the_receiver_will_never_take_is_rejected_with_its_words(receiver, sink_of, tmp_path, status):
    receiver.mishaps = [answer(status, "temperature is too hot")]
    with pytest.raises(Rejected, match=rf"answered {status} to rows 0-6: temperature is too hot"):
        sink_of().deliver(parcel_of(tmp_path))


class Picky:
    """Answers 400 to every request with a bad row, so an endpoint that judges requests as a whole."""

    keep = False

    def __init__(self, receiver: Receiver, bad: set[int]) -> None:
        self.receiver, self.bad = receiver, bad

    def act(self, handler: BaseHTTPRequestHandler) -> None:
        key, body = self.receiver.seen[-1]
        rejects = any(row["n"] in self.bad for row in json.loads(body)["rows"])
        if not rejects:
            self.receiver.kept.setdefault(key, body)
        answer(400 if rejects else 200, "odd").act(handler)


def test_bad_rows_behind_the_first_part_are_found_and_all_others_are_taken_once(receiver, sink_of, tmp_path):
    parcel = parcel_of(tmp_path, pa.record_batch({"n": range(40)}))
    receiver.mishaps = [Picky(receiver, {13, 14, 39})] * 999
    for _ in range(2):  # a retry tells the same, and the receiver has each row once
        receipt = sink_of(batch=10).deliver(parcel)
        assert list(receipt.rejected) == [13, 14, 39]
        assert "answered 400 to rows 13-13: odd" in receipt.rejected[13]
        assert receipt.details == {"parts": 4, "rows": 37}
        taken = [row["n"] for body in receiver.kept.values() for row in json.loads(body)["rows"]]
        assert sorted(taken) == [number for number in range(40) if number not in (13, 14, 39)]


def test_a_bad_row_in_the_first_part_leaves_the_parcel_untouched(receiver, sink_of, tmp_path):
    receiver.mishaps = [Picky(receiver, {5, 15})] * 999
    with pytest.raises(Rejected, match="answered 400 to rows 0-9"):
        sink_of(batch=10).deliver(parcel_of(tmp_path, pa.record_batch({"n": range(40)})))
    assert (len(receiver.seen), receiver.kept) == (1, {})


def test_a_receiver_that_takes_hardly_anything_is_not_asked_for_every_row(receiver, sink_of, tmp_path):
    receiver.mishaps = [Picky(receiver, set(range(10, 2000)))] * 9999
    with pytest.raises(Refused, match="110 of 120 rows were rejected"):
        sink_of(batch=10).deliver(parcel_of(tmp_path, pa.record_batch({"n": range(2000)})))


def test_redirect_is_refused_and_the_token_stays_here(receiver, sink_of, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0)
        receiver.mishaps = [answer(307, Location=f"http://127.0.0.1:{elsewhere.getsockname()[1]}/")]
        with pytest.raises(Refused, match="answered 307 to rows 0-6; if the address has moved"):
            sink_of(token=Secret(TOKEN, "env:HOOK")).deliver(parcel_of(tmp_path))
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_endless_answer_is_not_read(receiver, sink_of, tmp_path):
    receiver.mishaps = [answer(400, "x" * 5_000_000)]
    with pytest.raises(Rejected) as caught:
        sink_of().deliver(parcel_of(tmp_path))
    assert len(str(caught.value)) < 400


# -- secrets and options -----------------------------------------------------------------------------------------------


def test_secrets_are_sent_and_never_shown(receiver, sink_of, tmp_path, caplog):
    caplog.set_level("DEBUG")
    address = Secret(receiver.url, "env:HOOK_URL")
    sink = sink_of(url=address, token=Secret(TOKEN, "env:HOOK"), headers={"X-Key": Secret("other-canary", "env:KEY"), "X-Site": "north"})
    texts = [repr(sink), sink.probe(READINGS.schema), str(sink.deliver(parcel_of(tmp_path)))]
    assert receiver.headers[0]["Authorization"] == f"Bearer {TOKEN}"
    assert (receiver.headers[0]["X-Key"], receiver.headers[0]["X-Site"]) == ("other-canary", "north")
    for status in (400, 401, 500):
        receiver.mishaps = [answer(status, f"you sent {TOKEN} and other-canary\x1b[2J to {receiver.url}")]
        with pytest.raises((Rejected, Refused, Retry)) as caught:
            sink.deliver(parcel_of(tmp_path))
        texts.append(str(caught.value))
    assert "you sent *** and ***" in texts[-1]
    for text in [*texts, caplog.text]:
        assert not [word for word in (TOKEN, "other-canary", "of-mine", "\x1b") if word in text]


def test_parts_of_a_secret_address_are_secret_too(receiver, sink_of, tmp_path):
    receiver.mishaps = [answer(404, "nothing at /services/T0canary%2F1?key=canary, /services/T0canary/1 or key=canary")]
    address = Secret(receiver.url.partition("/hook")[0] + "/services/T0canary%2F1?key=canary", "env:HOOK_URL")
    with pytest.raises(Refused, match=r"nothing at \*\*\*, \*\*\* or \*\*\*; check the url"):
        sink_of(url=address).deliver(parcel_of(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://host/x"}, "url: is not an http or https URL"),
        ({"url": "http://"}, "url: is not an http or https URL"),
        ({"url": "http://[::1"}, "url: is not a URL"),
        ({"url": "https://me:canary@host/"}, "url: must not hold a user or password"),
        ({"token": Secret("canary\n", "file:/x")}, "token: has characters that a header cannot carry, such as a line break"),
        ({"headers": {"X-A": "a\r\nb"}}, r"headers\.X-A: has characters"),
        ({"headers": {"X A": "a"}}, r"headers\.X A: has characters"),
        ({"headers": {"idempotency-key": "1"}}, r"headers\.idempotency-key: is set by the sink; leave it out"),
        ({"token": Secret("t", "env:T"), "headers": {"Authorization": "x"}}, r"headers\.Authorization: is set by the sink"),
        ({"batch": 0}, "batch: expected at least 1"),
    ],
)
def test_mistakes_in_options_are_told_without_the_value(options, message):
    with pytest.raises(OptionError, match=message) as caught:
        WebhookSink(**{"url": "http://host/", **options})
    assert "canary" not in str(caught.value)


def test_options_come_from_yaml():
    secret = Secret(TOKEN, "env:HOOK")
    sink = build(WebhookSink, {"url": "https://host/x", "token": secret, "headers": {"A": "b", "C": secret}, "timeout": "3s"}, Path())
    assert (sink.url, sink.token, sink.headers, sink.timeout) == ("https://host/x", secret, {"A": "b", "C": secret}, timedelta(seconds=3))


def test_the_pipeline_of_the_readme_is_right(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (tmp_path / "p.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    sensor = ["sensor", "run", "--db", "data/sensor_data.db", "--rows", "5", "--rate", "0"]
    for arguments in (sensor, ["run", "p.yaml", "--dry-run"]):
        command = [sys.executable, "-m", "lakeward", *arguments]
        environment = os.environ | {"PAGER_TOKEN": TOKEN}
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
