"""A bad network, and what warehouses say: who tries again, who must act, and what they are told."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from attrs import define, field
from databricks.sql import exc
from faultproxy import FAULTS, FaultProxy

from lakeward import OptionError, Parcel, Refused, Rejected, Retry
from lakeward.secrets import Secret
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.databricks import sink as sink_module
from lakeward_plugins.sinks.databricks import statements
from lakeward_plugins.sinks.databricks.troubles import short, sorted_out

pytestmark = pytest.mark.one_python
READINGS = pa.record_batch({"_row": [1, 2, 3], "sensor": ["a", "b", None], "temperature": [20.5, -3.0, float("nan")]})
MODES: dict[str, dict[str, Any]] = {
    "copy": {},
    "insert": {"mode": "insert"},
    "merge": {"mode": "merge", "upsert_by": ["sensor"], "revision": "temperature"},
}


def parcel_of(tmp_path: Path, rows: pa.RecordBatch | pa.Table = READINGS, **token: Any) -> Parcel:
    return make_parcel(tmp_path / "spool", rows, **token)


# -- a bad network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("slow", "truncated")])
def test_what_the_network_spoils_is_tried_again_and_there_once(databricks, schema, sink_of, tmp_path, fault):
    """Each request of a delivery in turn, the last one that matters included."""
    sequence, tried = 0, Counter[str]()
    with FaultProxy(databricks.url, hang=30, retry_after=7) as proxy:
        sink = sink_of(host=proxy.url, timeout=timedelta(seconds=0.3 if "hang" in fault else 60))
        sink.deliver(parcel_of(tmp_path))
        for place in range(3):  # the statement PUT, the file itself, COPY INTO
            sequence = place + 2
            proxy.script(*["ok"] * place, fault)
            with pytest.raises(Retry, match=rf"^{schema}\.readings: ") as caught:
                sink.deliver(parcel_of(tmp_path, sequence=sequence))
            assert caught.value.throttled is (fault[:3] in ("429", "503"))
            assert caught.value.after == (7.0 if fault == "429_wait" and place != 1 else None)  # the client does not pass it on for files
            tried[str(sink.deliver(parcel_of(tmp_path, sequence=sequence)).details["already_there"])] += 1
    assert databricks.table(f"{schema}.readings").num_rows == 3 * sequence
    assert tried == ({"True": 1, "False": 2} if fault in ("reset_after", "hang_after") else {"False": 3})
    assert databricks.staged(schema) == []


def test_an_attempt_goes_on_where_the_one_before_ended(databricks, schema, sink_of, tmp_path):
    with FaultProxy(databricks.url) as proxy:
        sink = sink_of(host=proxy.url)
        sink.deliver(parcel_of(tmp_path))
        proxy.script("ok", "ok", "reset_before")  # COPY INTO
        with pytest.raises(Retry):
            sink.deliver(parcel_of(tmp_path, sequence=2))
        databricks.order(clear=True)
        sink.deliver(parcel_of(tmp_path, sequence=2))
        assert [one.split()[0] for one in databricks.order()["statements"]] == ["COPY", "REMOVE"]  # the file was in its place


def test_a_file_that_is_gone_before_it_was_loaded_is_sent_again(databricks, schema, sink_of, tmp_path):
    with FaultProxy(databricks.url) as proxy:
        sink = sink_of(host=proxy.url)
        sink.deliver(parcel_of(tmp_path))
        proxy.script("ok", "ok", "reset_before")
        with pytest.raises(Retry):
            sink.deliver(parcel_of(tmp_path, sequence=2))
        databricks.run(f"REMOVE '/Volumes/{schema.replace('.', '/')}/staged/{databricks.staged(schema)[0]}'")
        with pytest.raises(Retry, match="PATH_NOT_FOUND"):
            sink.deliver(parcel_of(tmp_path, sequence=2))
        sink.deliver(parcel_of(tmp_path, sequence=2))
    assert databricks.table(f"{schema}.readings").num_rows == 6


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_cut_short_anywhere_is_never_taken_for_more_than_it_says(databricks, schema, sink_of, tmp_path, mode):
    with FaultProxy(databricks.url, seed=3) as proxy:
        sink = sink_of(host=proxy.url, **MODES[mode], volume=f"{schema}.staged" if mode != "insert" else "")
        spoiled = 0
        for sequence in range(1, 13):
            rows = pa.record_batch({"_row": [sequence], "sensor": [f"s{sequence}"], "temperature": [float(sequence)]})
            proxy.script(*["ok"] * (sequence % 3), "truncated")
            with suppress(Retry):
                sink.deliver(parcel_of(tmp_path, rows, sequence=sequence))
                spoiled -= 1
            spoiled += 1
            while proxy.left:
                proxy.next_fault()
            sink.deliver(parcel_of(tmp_path, rows, sequence=sequence))
    assert spoiled >= 4
    assert sorted(databricks.table(f"{schema}.readings")["temperature"].to_pylist()) == [float(number) for number in range(1, 13)]


def bare_insert(table: Any, columns: Any, rows: str, token: str) -> str:
    return f"INSERT INTO {table.sql} BY NAME SELECT *, '{token}' AS lakeward_token FROM ({rows})"


PLANTED: dict[str, tuple[str, Any, str, Any]] = {
    "a name of its own for each attempt": ("copy", sink_module, "name_of", lambda parcel: f"x-{uuid.uuid4().hex}"),
    "insert without looking": ("insert", statements, "insert_once", bare_insert),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_lost_answer_shows_a_planted_bug(databricks, schema, sink_of, tmp_path, monkeypatch, bug):
    """So the tests above could fail."""
    mode, module, name, planted = PLANTED[bug]
    monkeypatch.setattr(module, name, planted)
    with FaultProxy(databricks.url) as proxy:
        sink = sink_of(host=proxy.url, mode=mode)
        sink.deliver(parcel_of(tmp_path))
        proxy.script(*["ok"] * (2 if mode == "copy" else 0), "reset_after")
        with pytest.raises(Retry):
            sink.deliver(parcel_of(tmp_path, sequence=2))
        sink.deliver(parcel_of(tmp_path, sequence=2))
    assert databricks.table(f"{schema}.readings").num_rows == 9  # and not 6


def test_nobody_listening_is_tried_again(sink_of, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Retry, match=r"NewConnectionError: .*Connection refused"):
        sink_of(host=f"http://127.0.0.1:{port}").deliver(parcel_of(tmp_path))


def test_a_name_that_is_not_found_is_tried_again(sink_of, tmp_path, monkeypatch):
    def not_found(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", not_found)
    with pytest.raises(Retry, match="NameResolutionError"):
        sink_of(host="adb-1.azuredatabricks.net").deliver(parcel_of(tmp_path))


def test_of_two_writers_at_once_the_one_that_lost_tries_again(databricks, schema, sink_of, tmp_path):
    sink = sink_of()
    sink.deliver(parcel_of(tmp_path))
    databricks.order(conflicts=1)
    with pytest.raises(Retry, match="DELTA_CONCURRENT_APPEND"):
        sink.deliver(parcel_of(tmp_path, sequence=2))
    assert sink.deliver(parcel_of(tmp_path, sequence=2)).details["already_there"] is False


# -- what a human mends, without a restart -----------------------------------------------------------------------------


@define
class Breakage:
    """What is taken away, by whom, and what is said."""

    told: str
    kind: type[Exception] = Refused
    order: dict[str, Any] = field(factory=dict)
    statement: str = ""
    mended_by: str = ""
    mode: str = "copy"


STOPPED = "answered 400 BAD_REQUEST: The warehouse is stopped and may not be started; start the warehouse"
MADE = "CREATE TABLE S.readings (sensor STRING, temperature DOUBLE, lakeward_token STRING)"


def revoked(privilege: str, kind: str, name: str, mode: str = "copy") -> Breakage:
    """Told with the statement that gives it back."""
    shown = name.replace("S", r"lake\.s\w+", 1)
    told = f"INSUFFICIENT_PERMISSIONS.*; let the owner of the {kind} run GRANT {privilege} ON {kind.upper()} {shown} TO the"
    return Breakage(told, order={"revoked": [[privilege, name]]}, mode=mode)


BROKEN = {
    "wrong token": Breakage("answered 403 Invalid access token; check `token`: it is wrong, expired", order={"tokens": []}),
    "stopped": Breakage(STOPPED, order={"state": "stopped"}),
    "starting": Breakage("answered 503 TEMPORARILY_UNAVAILABLE.*; it may be starting", Retry, {"state": "starting"}),
    "busy": Breakage("answered 429 Too many requests", Retry, {"state": "busy"}),
    "no table": Breakage("is not there; make it|TABLE_OR_VIEW_NOT_FOUND.*, or make it", statement="DROP TABLE S.readings", mended_by=MADE),
    "no modify": revoked("MODIFY", "table", "S.readings"),
    "no select": revoked("SELECT", "table", "S.readings", "insert"),
    "no write volume": revoked("WRITE VOLUME", "volume", "S.staged"),
    "no read volume": revoked("READ VOLUME", "volume", "S.staged"),
    "no use of schema": revoked("USE SCHEMA", "schema", "S"),
    "no use of catalog": revoked("USE CATALOG", "catalog", "lake"),
    "no way into the store": Breakage(
        "store of the volume answered 403 <Error><Code>AccessDenied.*; give the owner of the token READ VOLUME and WRITE VOLUME on the "
        "volume, and see that the storage credential of the volume may write, and that the store", order={"store": "AccessDenied"},
    ),
    "a stale address": Breakage("answered 403 .*ExpiredToken", Retry, {"store": "ExpiredToken"}),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("connected", [True, False])
def test_what_a_human_mends_is_told_in_one_line_and_found_without_a_restart(databricks, schema, sink_of, tmp_path, what, connected):
    broken = BROKEN[what]
    databricks.run(MADE.replace("S.", f"{schema}."))
    sink = sink_of(create=False, mode=broken.mode)
    if connected:
        sink.deliver(parcel_of(tmp_path))
    for statement in filter(None, [broken.statement]):
        databricks.run(statement.replace("S.", f"{schema}."))
    taken = [[privilege, re.sub(r"^S\b", schema, name)] for privilege, name in broken.order.get("revoked", [])]
    databricks.order(**broken.order | {"revoked": taken})
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(broken.kind, match=broken.told) as caught:
            sink.deliver(parcel_of(tmp_path, sequence=2))
        assert str(caught.value).isprintable()
        assert databricks.token not in str(caught.value)
    assert time.monotonic() - began < 30  # the client library would wait a minute before it tries again
    databricks.mend()
    for statement in filter(None, [broken.mended_by]):
        databricks.run(statement.replace("S.", f"{schema}."))
    assert sink.deliver(parcel_of(tmp_path, sequence=2)).details["already_there"] is False
    assert databricks.table(f"{schema}.readings").num_rows == (6 if connected and what != "no table" else 3)


def test_a_volume_schema_or_warehouse_that_is_not_there_is_refused(databricks, schema, sink_of, tmp_path):
    with pytest.raises(Refused, match=r"VOLUME_NOT_FOUND.*; make the volume, or correct `volume`"):
        sink_of(volume=f"{schema}.none").deliver(parcel_of(tmp_path))
    with pytest.raises(Refused, match=r"SCHEMA_NOT_FOUND.*; correct `table`, or make the schema"):
        sink_of(table="lake.none.readings").deliver(parcel_of(tmp_path))
    with pytest.raises(Refused, match="answered 404 RESOURCE_DOES_NOT_EXIST: No such warehouse; check `host` and `http_path`"):
        sink_of(http_path="/sql/1.0/warehouses/none").deliver(parcel_of(tmp_path))


def test_probe_finds_the_same_before_the_first_row(databricks, schema, sink_of):
    assert sink_of().probe(READINGS.schema) == (
        f"would COPY INTO, by files in /Volumes/{schema.replace('.', '/')}/staged, the table {schema}.readings, and make it (2 columns)"
    )
    with pytest.raises(OptionError, match=r"table: .*readings is not there; make it"):
        sink_of(create=False).probe(READINGS.schema)
    databricks.run(f"CREATE TABLE {schema}.readings (sensor STRING, temperature STRING, lakeward_token STRING)")
    with pytest.raises(Refused, match="column 'temperature' is DOUBLE in rows and STRING in the table"):
        sink_of().probe(READINGS.schema)
    with pytest.raises(Refused, match="VOLUME_NOT_FOUND"):
        sink_of(volume=f"{schema}.none", table=f"{schema}.other").probe(READINGS.schema)
    with pytest.raises(OptionError, match="revision: the rows have no column 'version'; their columns are sensor, temperature"):
        sink_of(mode="merge", upsert_by=["sensor"], revision="version").probe(READINGS.schema)
    assert databricks.table(f"{schema}.readings").num_rows == 0


# -- what others say ---------------------------------------------------------------------------------------------------

SAID = [
    (exc.ServerOperationError("[CAST_OVERFLOW] The value cannot be cast. SQLSTATE: 22003"), Rejected, "CAST_OVERFLOW"),
    (exc.ServerOperationError("[DELTA_VIOLATE_CONSTRAINT_WITH_VALUES] CHECK constraint. SQLSTATE: 23001"), Rejected, "CHECK"),
    (exc.ServerOperationError("[DELTA_CONCURRENT_WRITE] A concurrent transaction. SQLSTATE: 2D521"), Retry, "CONCURRENT"),
    (exc.ServerOperationError("[DELTA_METADATA_CHANGED] by another node's `evolve`. SQLSTATE: 2D521"), Retry, "METADATA_CHANGED"),
    (exc.ServerOperationError("[STATEMENT_TIMEOUT] took too long. SQLSTATE: HYT00"), Retry, "TIMEOUT"),
    (exc.ServerOperationError("[INTERNAL_ERROR] oops SQLSTATE: XX000"), Retry, "oops"),
    (exc.ServerOperationError("[PARSE_SYNTAX_ERROR] at\n'x'. SQLSTATE: 42601"), Refused, "look for the statement in the query history"),
    (exc.DatabaseError("Command 01 unexpectedly closed server side"), Retry, "closed server side"),
    (exc.ServerOperationError("PERMISSION_DENIED: Presigned URLs API is not enabled"), Refused, "give the owner of the token"),
    (exc.ServerOperationError("[INVALID_PARAMETER_VALUE] SQLSTATE: 22023"), Refused, "query history"),
    (exc.ServerOperationError("[CATALOG_NOT_FOUND] The catalog SQLSTATE: 42704"), Refused, "make what is missing, or correct `table`"),
    (exc.ServerOperationError("TEMPORARILY_UNAVAILABLE: The cluster is starting"), Retry, "starting"),
    (exc.DatabaseError("RESOURCE_DOES_NOT_EXIST: Command 01ee6e90 does not exist."), Retry, "does not exist"),
    (exc.DatabaseError("something that nobody has heard of"), Refused, "query history"),
    (exc.DatabaseError(None), Refused, "no word about it; look for"),
    (ImportError("use_kernel requires the databricks-sql-kernel package"), Refused, "requires the databricks-sql-kernel package"),
    (exc.DatabaseError("Session 01ef does not exist"), Retry, "does not exist"),
    (exc.OperationalError("Staging operation over HTTP was unsuccessful: 413-too large"), Rejected, "413 too large"),
    (
        exc.OperationalError("Staging operation over HTTP was unsuccessful: 403-Request has expired"),
        Retry,
        "answered 403 Request has expired",
    ),
    (
        exc.OperationalError("Staging operation over HTTP was unsuccessful: 403-AccessDenied"),
        Refused,
        "give the owner of the token READ VOLUME",
    ),
    (
        exc.ServerOperationError("PERMISSION_DENIED: User does not have USE SCHEMA on Schema 'main.iot'."),
        Refused,
        "GRANT USE SCHEMA ON SCHEMA main.iot",
    ),
    (exc.RequestError("x", {"http-code": 404, "method": "ExecuteStatement"}), Retry, "answered 404"),
    (exc.RequestError("x", {"http-code": 401, "method": "OpenSession"}), Refused, "check `token`"),
    (exc.RequestError("x", {"http-code": 200, "method": "OpenSession"}), Retry, "cut short, or is none"),
    (exc.MaxRetryDurationError("would exceed"), Retry, "would exceed"),
    (ValueError("invalid literal for int() with base 10: 'Wed, 21 Oct'"), Retry, "ValueError"),
]


@pytest.mark.parametrize(("error", "kind", "told"), SAID, ids=lambda value: repr(value)[:30])
def test_what_is_said_is_sorted_by_what_the_kernel_does(error, kind, told):
    found = sorted_out(error, "lake.iot.readings")
    assert isinstance(found, kind)
    assert told in str(found)
    assert str(found).isprintable()


def test_an_address_with_a_signature_is_not_shown():
    told = short("Max retries exceeded with url: /a/b.parquet?X-Amz-Signature=canary&x=1 (Caused by X('https://h/p?sig=canary'))")
    assert told == "Max retries exceeded with url: /a/b.parquet?*** (Caused by X('https://h/p?***'))"
    assert len(short("x" * 10_000)) < 500


def test_the_libraries_do_not_tell_what_they_send_even_when_all_is_logged(databricks, schema, sink_of, tmp_path, caplog):
    names = ("databricks", "databricks.sql.unsafe", "urllib3", "urllib3.connectionpool", "urllib3.connection")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.NOTSET)
        with caplog.at_level(logging.DEBUG), FaultProxy(databricks.url, p=0.3, seed=1, hang=0.1, retry_after=0) as proxy:
            sink = sink_of(host=proxy.url, timeout=timedelta(seconds=0.3))
            for sequence in range(1, 6):
                for _ in range(50):
                    with suppress(Retry):
                        sink.deliver(parcel_of(tmp_path, sequence=sequence))
                        break
            with pytest.raises((Refused, Retry)):
                sink_of(host=proxy.url, token=Secret("canary-of-a-token", "env:T")).deliver(parcel_of(tmp_path))
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
    for value in ("canary-of-a-token", databricks.token, "X-Amz-Signature"):
        assert value not in caplog.text + repr(sink)


class Portal(BaseHTTPRequestHandler):
    """Welcomes everybody to a hotel."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "17")
        self.end_headers()
        self.wfile.write(b"<html>hello</html>"[:17])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def portal() -> Iterator[Callable[[], ThreadingHTTPServer]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as listener:
        listener.handle_error = lambda *_: None  # type: ignore[method-assign]  # handshakes that fail are part of the tests
        started: list[threading.Thread] = []

        def start() -> ThreadingHTTPServer:
            started.append(threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}))
            started[0].start()
            return listener

        yield start
        listener.shutdown()
        started[0].join()


def test_a_captive_portal_is_no_warehouse(portal, sink_of, tmp_path):
    with pytest.raises(Retry, match="the answer of the warehouse is cut short, or is none"):
        sink_of(host=f"http://127.0.0.1:{portal().server_port}").deliver(parcel_of(tmp_path))


def test_a_certificate_that_nobody_signed_is_refused(portal, sink_of, tmp_path, monkeypatch):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "own.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(encoding) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    listener = portal()
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    with pytest.raises(Refused, match="certificate of the warehouse is not trusted: self-signed certificate; check `host`"):
        sink_of(host=f"https://127.0.0.1:{listener.server_port}").deliver(parcel_of(tmp_path))
