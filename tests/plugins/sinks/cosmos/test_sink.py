"""Options, what the service says, and queries."""

from __future__ import annotations

import base64
import logging
import ssl
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from azure.cosmos import ContainerProxy, PartitionKey
from cosmos_server import CosmosServer, documents
from cosmosdb.documents import KEY

from lakeward import OptionError, Refused, Retry
from lakeward.secrets import Secret
from lakeward.yamlfile.build import Mistakes, build
from lakeward_plugins.sinks.cosmos import CosmosSink

Make = Callable[..., Any]
OTHER = "YW5vdGhlciBrZXkgb2YgdGhlIGFjY291bnQ="


@pytest.fixture
def container(cosmos: CosmosServer) -> ContainerProxy:
    return cosmos.container("/city")


# -- what the service says ---------------------------------------------------------------------------------------------

AGAIN = [(408, 0), (410, 1002), (429, 3200), (449, 0), (500, 0), (502, 0), (503, 0), (504, 0), (403, 3), (404, 1002)]
REFUSED = [
    (401, 0, "check `key`, and the clock of this machine"),
    (403, 0, "let the address of this machine through the firewall of the account, and check that `key` may write"),
    (403, 1014, r"the partition is full \(20 GB\): choose a partition key with more values, in a new container"),
    (404, 1003, "make the database and the container, or correct `database` and `container`"),
    (405, 0, "check the options of this sink"),
]


@pytest.mark.parametrize(("status", "sub"), AGAIN)
def test_what_passes_is_tried_again_by_the_kernel_and_by_nobody_else(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make, monkeypatch: Any, status: int, sub: int
) -> None:
    monkeypatch.setattr("lakeward_plugins.sinks.cosmos.writing.PATIENCE", 0)
    sink, parcel = sink_of(container), parcel_of(pa.record_batch({"_row": [1], "city": ["Oslo"]}))
    sink.probe(pa.schema([("city", pa.string())]))
    cosmos.set(script=[[status, sub, "no\nway"]] * 5)
    with pytest.raises(Retry, match=rf"/readings: Cosmos DB answered {status}.*: no way") as caught:
        sink.deliver(parcel)
    assert (caught.value.throttled, cosmos.set(script=[])["script"]) == (status in (429, 503), 0)
    assert sink.deliver(parcel).details["written"] == 1


def test_the_library_asks_once(cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    sink = sink_of(container)
    sink.probe(pa.schema([("city", pa.string())]))
    cosmos.set(script=[[503, 0, "later"]] * 5)
    with pytest.raises(Retry):
        sink.deliver(parcel_of(pa.record_batch({"_row": [1], "city": ["Oslo"]})))
    assert cosmos.set()["script"] == 4


@pytest.mark.parametrize(("status", "sub", "todo"), REFUSED)
def test_what_a_human_must_mend_is_refused_in_one_line_and_works_again(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make, status: int, sub: int, todo: str
) -> None:
    sink = sink_of(container)
    cosmos.set(script=[[status, sub, "no\n\u202eway"]] * 2)
    with pytest.raises(Refused, match=rf"Cosmos DB answered {status}.*: no way; {todo}") as caught:
        sink.deliver(parcel_of())
    assert str(caught.value).isprintable()
    cosmos.set(script=[])
    sink.deliver(parcel_of())
    assert len(documents(container)) == 4


def test_mistakes_are_told_by_the_probe(cosmos: CosmosServer, container: ContainerProxy, sink_of: Make) -> None:
    schema = pa.schema([("city", pa.string()), ("sensor", pa.string()), ("at", pa.timestamp("us", "UTC"))])
    where = f"{cosmos.url}/{container.container_link.split('/')[1]}/readings"
    assert sink_of(container).probe(schema) == f"would create items in {where}, partitioned by /city"
    assert (
        sink_of(container, upsert_by=["sensor", "city"], revision="at").probe(schema).startswith("would upsert items by sensor, city in ")
    )
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"key": Secret(OTHER, "env:K")}, "answered 401: The input authorization token can't serve the request"),
        ({"database": "none"}, r"answered 404.*make the database and the container, or correct `database` and `container`"),
        ({"container": "none"}, r"answered 404.*make the database and the container, or correct `database` and `container`"),
        ({"partition_key": "/sensor"}, "the partition key of the container is /city, not /sensor; set `partition_key` to it"),
    ]
    for options, message in wrong:
        with pytest.raises(Refused, match=message):
            sink_of(container, **options).probe(schema)
    cosmos.set(firewall=True)
    with pytest.raises(Refused, match=r"answered 403: Request originated from IP 127.0.0.1 .* firewall settings; let the address"):
        sink_of(container).probe(schema)
    cosmos.reset()
    assert documents(container) == []


def test_a_hierarchical_partition_key_is_refused(cosmos: CosmosServer, sink_of: Make) -> None:
    database = cosmos.client.create_database("hierarchical")
    container = database.create_container("readings", PartitionKey(["/city", "/sensor"], kind="MultiHash"))
    with pytest.raises(Refused, match=r"is /city, /sensor, not /city; make a container whose partition key is one path"):
        sink_of(container).probe(pa.schema([("city", pa.string())]))
    cosmos.client.delete_database("hierarchical")


def test_a_key_for_reading_alone_is_refused(cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    cosmos.set(keys={KEY: "all", OTHER: "read"})
    with pytest.raises(Refused, match=r"403: Insufficient permissions.*check that `key` may write"):
        sink_of(container, key=Secret(OTHER, "env:K")).deliver(parcel_of())


def test_nobody_there_is_tried_again(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    with pytest.raises(Retry, match="ServiceRequestError"):
        sink_of(container, endpoint="http://127.0.0.1:9", connect_timeout=timedelta(seconds=1)).deliver(parcel_of())


class Portal(BaseHTTPRequestHandler):
    """A hotel's welcome page."""

    def answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "21")
        self.end_headers()
        self.wfile.write(b"<html>Welcome!</html>")

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def listening(server: ThreadingHTTPServer) -> threading.Thread:
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # handshakes that fail are part of the tests
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    return thread


def test_a_captive_portal_is_no_account(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        thread = listening(server)
        with pytest.raises(Retry, match="DecodeError"):
            sink_of(container, endpoint=f"http://127.0.0.1:{server.server_port}").deliver(parcel_of())
        server.shutdown()
        thread.join()


def test_a_certificate_that_nobody_signed_is_refused(container: ContainerProxy, sink_of: Make, parcel_of: Make, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.2", 0), Portal) as server:  # on 127.0.0.1 the library believes every certificate
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own_certificate(tmp_path))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = listening(server)
        with pytest.raises(
            Refused, match="its certificate is not trusted: self-signed certificate; check `endpoint` and the certificates here"
        ):
            sink_of(container, endpoint=f"https://127.0.0.2:{server.server_port}").deliver(parcel_of())
        server.shutdown()
        thread.join()


def own_certificate(tmp_path: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.2")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.2"))]), critical=False)
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "own.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(encoding) + private)
    return tmp_path / "own.pem"


# -- options -----------------------------------------------------------------------------------------------------------

RIGHT: dict[str, Any] = {
    "endpoint": "https://a.documents.azure.com/",
    "key": Secret(KEY, "env:K"),
    "database": "lake",
    "container": "readings",
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "a.documents.azure.com"}, "endpoint: is not an address such as"),
        ({"endpoint": "https://me:canary@host"}, "endpoint: is not an address such as"),
        ({"endpoint": "AccountEndpoint=https://host;AccountKey=canary"}, "endpoint: is not an address such as"),
        ({"key": Secret("canary canary", "env:K")}, "key: is not a key of an account: it is not base64"),
        ({"database": ""}, "database: cannot be a name"),
        ({"container": "a/b"}, "container: cannot be a name"),
        ({"partition_key": "city"}, "partition_key: 'city' is not a path such as /city"),
        ({"partition_key": "/"}, "partition_key: '/' is not a path such as /city"),
        ({"revision": "revision"}, "revision: says which of two items"),
        ({"upsert_by": ["window_id"]}, "upsert_by: needs a `revision`, so that an older row that comes again never replaces a newer one"),
        ({"concurrency": 0}, "concurrency: expected from 1 to 64, got 0"),
        ({"timeout": timedelta(0)}, "timeout: expected at least 0.1 s"),
    ],
)
def test_mistakes_in_options_are_told_without_a_secret(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        CosmosSink(**RIGHT | options)
    assert "canary" not in str(caught.value)


def test_options_come_from_yaml() -> None:
    given = RIGHT | {"upsert_by": ["window_id"], "revision": "revision", "timeout": "2m", "inserted_at": "at"}
    with closing(build(CosmosSink, given, Path())) as sink:
        assert (sink.timeout, sink.partition_key, sink.encoding.row_key, sink.encoding.inserted_at) == (
            timedelta(minutes=2),
            "/city",
            True,
            "at",
        )
    with pytest.raises(Mistakes, match="is a secret: do not write it here"):
        build(CosmosSink, RIGHT | {"key": KEY}, Path())


def test_the_key_is_never_shown(cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make, caplog: Any) -> None:
    before = logging.getLogger("azure").level
    try:
        logging.getLogger("azure").setLevel(logging.NOTSET)
        with caplog.at_level(logging.DEBUG):
            sink = sink_of(container)
            sink.deliver(parcel_of())
            with pytest.raises(Refused) as caught:
                sink_of(container, key=Secret(OTHER, "env:K")).deliver(parcel_of())
    finally:
        logging.getLogger("azure").setLevel(before)
    for value in (KEY, OTHER, base64.b64decode(KEY).decode()):
        assert value not in caplog.text + repr(sink) + str(caught.value)
    assert "sig%3" not in caplog.text


# -- queries -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> CosmosSink:
    keys = range(300)
    rows = pa.record_batch({"_row": keys, "city": ["Oslo", "Rome", "Oslo"] * 100, "n": keys, "big": [2**53 + n % 2 for n in keys]})
    sink: CosmosSink = sink_of(container)
    sink.deliver(parcel_of(rows))
    return sink


def test_a_query_gives_a_table(filled: CosmosSink) -> None:
    table = filled.query("SELECT c.city, c.n FROM c WHERE c.n >= @least ORDER BY c.n DESC", {"@least": 297})
    assert table.to_pylist() == [{"city": "Oslo", "n": 299}, {"city": "Rome", "n": 298}, {"city": "Oslo", "n": 297}]
    assert filled.query("SELECT VALUE COUNT(1) FROM c").to_pylist() == [{"value": 300}]
    assert filled.query("SELECT VALUE COUNT(1) FROM c", partition="Rome").to_pylist() == [{"value": 100}]
    latest = filled.query("SELECT * FROM c WHERE c.city = @city ORDER BY c.n DESC", {"@city": "Rome"}, limit=2)
    assert latest["n"].to_pylist() == [298, 295]
    assert latest.column_names == ["id", "city", "n", "big"]  # and not what the service adds, unless by name
    assert filled.query("SELECT c._ts FROM c", limit=1).column_names == ["_ts"]
    assert filled.query("SELECT * FROM c").num_rows == 300  # in pages
    assert filled.query("SELECT * FROM c WHERE c.n < 0").num_rows == 0


def test_values_of_several_types_are_json_text(filled: CosmosSink) -> None:
    table = filled.query("SELECT c.n, c.big FROM c WHERE c.n < 2 ORDER BY c.n")
    assert table.to_pylist() == [{"n": 0, "big": "9007199254740992"}, {"n": 1, "big": '"9007199254740993"'}]


def test_names_that_only_some_items_have_are_columns(container: ContainerProxy, filled: CosmosSink) -> None:
    container.upsert_item({"id": "odd", "city": "Oslo", "extra": [1]})
    table = filled.query("SELECT c.n, c.extra FROM c WHERE c.id = 'odd' OR c.n = 1 ORDER BY c.n")
    assert sorted(table.to_pylist(), key=str) == [{"n": 1, "extra": None}, {"n": None, "extra": [1]}]


def test_what_is_wrong_with_a_query_is_told_in_one_line(cosmos: CosmosServer, filled: CosmosSink) -> None:
    with pytest.raises(Refused, match=r"answered 400: Syntax error, incorrect syntax near 'SELEC'; correct the query") as caught:
        filled.query("SELEC")
    assert str(caught.value).isprintable()
    cosmos.set(script=[[429, 3200, "The request rate is large"]])
    with pytest.raises(Retry, match="answered 429"):
        filled.query("SELECT * FROM c")
