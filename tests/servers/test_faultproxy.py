"""The proxy that other tests trust does what it says, before a real server that counts what reaches it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from faultproxy import FAULTS, FaultProxy

ANSWER = b"a long enough answer" * 5


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: list[tuple[str, str, bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        assert isinstance(self.server, Server)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.heard.append((f"{self.command} {self.path}", self.headers["Host"], body))
        self.send_response(201)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else ANSWER)

    do_PUT = do_HEAD = answer  # noqa: N815  # names that the library asks for

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


def ask(proxy: FaultProxy, timeout: float = 20, method: str = "PUT", **options: object) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=timeout)
    try:
        connection.request(method, "/a%20b?c=d", body=options.pop("body", b"rows"), **options)  # type: ignore[arg-type]
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def test_without_a_fault_all_goes_through_unchanged(server: Server) -> None:
    with FaultProxy(server.url) as proxy:
        host = proxy.url.removeprefix("http://")
        assert ask(proxy)[::2] == (201, ANSWER)
        assert ask(proxy, headers={"Expect": "100-continue"})[::2] == (201, ANSWER)
        status, headers, content = ask(proxy, method="HEAD", body=None)
        assert (status, headers["Content-Length"], content) == (201, "100", b"")
    assert server.heard == [("PUT /a%20b?c=d", host, body) for body in (b"rows", b"rows")] + [("HEAD /a%20b?c=d", host, b"")]
    assert proxy.counts == {"ok": 3}


def test_a_request_that_ends_early_goes_no_further(server: Server) -> None:
    with FaultProxy(server.url) as proxy, socket.create_connection(("127.0.0.1", urlsplit(proxy.url).port or 0)) as connection:
        connection.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert server.heard == []


ERRORS = {"reset_before": ConnectionResetError, "reset_after": ConnectionResetError, "hang_after": TimeoutError}
REACHED = {"reset_after", "hang_after", "truncated", "slow"}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_what_it_says(server: Server, fault: str) -> None:
    with FaultProxy(server.url, hang=30, slow=0.2, retry_after=9) as proxy:
        proxy.script(fault)
        started = time.monotonic()
        if fault in ERRORS:
            with pytest.raises(ERRORS[fault]):
                ask(proxy, timeout=0.3 if fault == "hang_after" else 20)
        elif fault == "truncated":
            with pytest.raises(http.client.HTTPException):
                ask(proxy)
        elif fault == "slow":
            assert ask(proxy)[::2] == (201, ANSWER)
            assert time.monotonic() - started >= 0.2
        else:
            status, headers, _ = ask(proxy)
            assert (str(status), headers.get("Retry-After")) == (fault[:3], "9" if fault == "429_wait" else None)
        assert len(server.heard) == (fault in REACHED)
        assert ask(proxy)[0] == 201
    assert proxy.counts == {fault: 1, "ok": 1}


def test_chance_gives_each_fault_as_often_as_the_others() -> None:
    proxy = FaultProxy("http://127.0.0.1:1", p=0.5, seed=1)
    dealt = [proxy.next_fault() for _ in range(1_000)]
    assert proxy.counts.keys() == {*FAULTS, "ok"}
    assert 450 < proxy.counts["ok"] < 550
    often = [proxy.counts[fault] for fault in FAULTS]
    assert max(often) - min(often) <= 1
    again = FaultProxy("http://127.0.0.1:1", p=0.5, seed=1)
    assert [again.next_fault() for _ in range(1_000)] == dealt
    for one in (proxy, again):
        one.close()


def test_a_server_can_lack_what_a_header_asks_for(server: Server) -> None:
    with FaultProxy(server.url, lacks="If-None-Match") as proxy:
        assert ask(proxy, headers={"If-None-Match": "*"})[0] == 501
        assert ask(proxy)[0] == 201
    assert len(server.heard) == 1
