"""A bad network: an HTTP/1.1 reverse proxy on loopback that spoils requests, by chance or by script, and counts how.

    with FaultProxy("http://127.0.0.1:5000", p=0.5, seed=1) as proxy:
        ...  # send requests to proxy.url
    proxy.counts["reset_after"]

The proxy is for any client and any server: it hands on method, path, headers (`Host` too, which signatures are made of) and body,
whose length must be told in the head.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

FAULTS = {
    "reset_before": "the connection is reset before the server hears of the request",
    "reset_after": "the server does the work, then the connection is reset: the answer is lost",
    "hang_after": "the server does the work, and no answer comes for `hang` seconds",
    "truncated": "the server does the work, and the answer ends before its end",
    "slow": "the answer comes in pieces, over `slow` seconds",
    "500": "the proxy answers 500 itself",
    "503": "... or 503 without `Retry-After`",
    "429": "... or 429 without `Retry-After`",
    "429_wait": "... or 429 with `Retry-After: <retry_after>`",
}
OK = "ok"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, on and no time: the peer sees a reset and not an end
HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade")


class FaultProxy:
    """Decides one fault for each request. `counts` says how often each came, `ok` for none."""

    def __init__(
        self, upstream: str, *, p: float = 0.0, seed: int = 0, faults: Sequence[str] = tuple(FAULTS),
        hang: float = 1.0, slow: float = 0.05, retry_after: int = 1, lacks: str = "",
    ) -> None:  # fmt: skip
        address = urlsplit(upstream)
        self.upstream = (address.hostname or "", address.port or 80)
        self.p, self.hang, self.slow, self.retry_after = p, hang, slow, retry_after
        self.lacks = lacks
        """Name of a header that is answered with 501: a server that cannot do what it asks for."""
        self.counts: Counter[str] = Counter()
        self.closing = threading.Event()
        self._random = random.Random(seed)
        self._faults, self._deck = list(faults), list[str]()
        self._script: deque[str] = deque()
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            faults = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def script(self, *faults: str) -> None:
        """What happens to the next requests, one each, before chance decides again: a fault, or a number to answer such as 403."""
        unknown = {fault for fault in faults if fault not in (*FAULTS, OK) and not fault.isdecimal()}
        assert not unknown, f"no such faults: {unknown}"
        with self._lock:
            self._script.extend(faults)

    def mend(self) -> None:
        """Forget the rest of the script."""
        with self._lock:
            self._script.clear()

    @property
    def left(self) -> int:
        """How much of the script has not happened yet."""
        return len(self._script)

    def next_fault(self) -> str:
        """Dealt from a deck of all faults, shuffled anew when it is empty, so that each comes as often as the others."""
        with self._lock:
            if self._script:
                fault = self._script.popleft()
            elif self._random.random() < self.p:
                if not self._deck:
                    self._deck = self._random.sample(self._faults, len(self._faults))
                fault = self._deck.pop()
            else:
                fault = OK
            self.counts[fault] += 1
            return fault

    def cut(self, size: int) -> int:
        """Where an answer of so many bytes ends early: in its first line, in its headers or in its body."""
        with self._lock:
            return self._random.randrange(1, size)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self.close()

    def close(self) -> None:
        """Give the port back."""
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    block_on_close = False
    daemon_threads = True

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        self.close_request(request)  # without the polite end that would come before a reset

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up, or are killed, are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: FaultProxy

    def serve(self) -> None:
        body = self._body()
        if body is None:  # the client died in the middle; made whole, a part of a request would be another request
            self.close_connection = True
            return
        fault = self.faults.next_fault()
        if self.faults.lacks and self.faults.lacks in self.headers:
            self._last(b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        elif fault == "reset_before":
            self._reset()
        elif fault[:3].isdecimal():
            wait = f"Retry-After: {self.faults.retry_after}\r\n" if fault.endswith("_wait") else ""
            self._last(f"HTTP/1.1 {fault[:3]} Fault\r\n{wait}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        else:
            self._answer(fault, self._ask(body))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve  # noqa: N815  # names that the library asks for

    def _answer(self, fault: str, answer: bytes) -> None:
        if fault == "reset_after":
            self._reset()
        elif fault == "hang_after":
            self.faults.closing.wait(self.faults.hang)
            self._reset()
        elif fault == "truncated":
            self._last(answer[: self.faults.cut(len(answer))])
        elif fault == "slow":
            size = len(answer) // 4 + 1
            for start in range(0, len(answer), size):
                self.faults.closing.wait(self.faults.slow / 4)
                self.wfile.write(answer[start : start + size])
        else:
            self.wfile.write(answer)

    def _body(self) -> bytes | None:
        """All of it, or None when it ends early."""
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        return body if len(body) == size else None

    def _ask(self, body: bytes) -> bytes:
        """The server's whole answer, as bytes with a length."""
        upstream = http.client.HTTPConnection(*self.faults.upstream, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in (*HOP_BY_HOP, "content-length"):
                    upstream.putheader(name, value)
            if body or self.command in ("PUT", "POST"):
                upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body)
            response = upstream.getresponse()
            content = response.read()
        finally:
            upstream.close()
        dropped = HOP_BY_HOP if self.command == "HEAD" else (*HOP_BY_HOP, "content-length")
        lines = [f"{name}: {value}" for name, value in response.getheaders() if name.lower() not in dropped]
        if self.command != "HEAD" and response.status not in (204, 304):
            lines.append(f"Content-Length: {len(content)}")
        return "\r\n".join([f"HTTP/1.1 {response.status} {response.reason}", *lines, "", ""]).encode("latin-1") + content

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.close_connection = True

    def _last(self, answer: bytes) -> None:
        self.wfile.write(answer)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Silent: `counts` says it."""
