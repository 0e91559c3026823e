"""The way to an address, against servers on loopback that answer, are silent, or are somebody else."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lakeward.cli.reaching import reach, why_not_found


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def resolver(code: int | None, *, tcp: bool) -> Iterator[tuple[str, int]]:
    """One that answers every question with a code, or with nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as listening:
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        if tcp:
            listening.bind(("127.0.0.1", port))
            listening.listen()

        def answer() -> None:
            with suppress(OSError):
                while True:
                    question, asker = udp.recvfrom(512)
                    assert b"\x04lake\x07example" in question
                    if code is not None:
                        udp.sendto(question[:2] + bytes([0x81, 0x80 | code]) + question[4:], asker)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield "127.0.0.1", port


@pytest.mark.parametrize(
    ("code", "tcp", "words"),
    [
        (3, False, ["answers that there is no such name", "Check the spelling"]),
        (2, False, ["SERVFAIL", "Ask whoever runs the resolver"]),
        (0, False, ["knows the name", "nsswitch.conf"]),
        (None, True, ["does not answer on UDP", "is open)", "Outbound UDP port 53 is probably blocked", "daemon.json"]),
        (None, False, ["does not answer on UDP", "is not reachable)", "UDP port 53 is probably blocked"]),
    ],
)
def test_why_a_name_is_not_found(code: int | None, tcp: bool, words: list[str]) -> None:
    with resolver(code, tcp=tcp) as one:
        said = why_not_found("lake.example", [one], patience=0.3)
    assert [word for word in words if word not in said] == [], said


def test_without_a_resolver() -> None:
    assert "names no resolver" in why_not_found("lake.example", [])


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        talk(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]


def certificate(folder: Path, days: int) -> Path:
    """For localhost, signed by itself, good from ten days ago for so many days."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=10)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return file


def with_tls(file: Path) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    return talk


def test_a_certificate_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certificate(tmp_path, 20)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with server(with_tls(file)) as port:
        steps = list(reach(f"https://localhost:{port}", 5))
    assert [(name, ok) for name, ok, *_ in steps] == [("name resolution", True), (f"TCP port {port}", True), ("TLS", True)]
    assert "certificate good until" in steps[-1][2]


@pytest.mark.parametrize(
    ("days", "trusted", "found", "todo"), [(20, False, "self-signed", "REQUESTS_CA_BUNDLE"), (5, True, "expired", "clock")]
)
def test_a_certificate_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, trusted: bool, found: str, todo: str
) -> None:
    file = certificate(tmp_path, days)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with server(with_tls(file)) as port:
        name, ok, said, advice = list(reach(f"https://localhost:{port}", 5))[-1]
    assert (name, ok) == ("TLS", False)
    assert found in said
    assert todo in advice


def test_something_else_listens() -> None:
    with server(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as port:
        name, ok, _, advice = list(reach(f"https://127.0.0.1:{port}", 5))[-1]
    assert (name, ok) == ("TLS", False)
    assert "something else" in advice
    assert "http:// if that is meant" in advice


def test_nothing_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        name, ok, said, advice = list(reach(f"http://127.0.0.1:{port}", 5))[-1]
    assert (name, ok, said) == (f"TCP port {port}", False, "127.0.0.1: Connection refused")
    assert "nothing listens there" in advice


def test_one_that_says_nothing_is_not_waited_for() -> None:
    with server(lambda connection: threading.Event().wait(30) and None) as port:
        name, ok, said, _ = list(reach(f"https://127.0.0.1:{port}", 0.3))[-1]
    assert (name, ok, said) == ("TLS", False, "no answer in time")


def test_through_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(connection: socket.socket) -> None:
        asked.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with server(refuse) as port:
        monkeypatch.setenv("https_proxy", f"http://user:secret@127.0.0.1:{port}")
        steps = list(reach("https://lake.example:8443", 5))
    assert asked[0].startswith(b"CONNECT lake.example:8443 ")
    assert steps[-1][:2] == ("TLS", False)
    assert "403" in steps[-1][2]
    assert "secret" not in str(steps)
