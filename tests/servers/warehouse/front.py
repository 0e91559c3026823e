"""HTTP: who is asking, answers that a test has ordered, and the way to the service or to a file."""

from __future__ import annotations

import json
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import define, field
from databricks.sql.thrift_api.TCLIService import TCLIService
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.transport.TTransport import TMemoryBuffer

from warehouse.engine import Engine
from warehouse.service import BASE, Service
from warehouse.volumes import PREFIX

WAREHOUSE = "/sql/1.0/warehouses/0123456789abcdef"
STATES = {
    "starting": (503, "TEMPORARILY_UNAVAILABLE: The warehouse is starting.", {"Retry-After": "1"}),
    "stopped": (400, "BAD_REQUEST: The warehouse is stopped and may not be started.", {}),
    "busy": (429, "Too many requests.", {"Retry-After": "1"}),
}


@define
class Door:
    """Who may come in, what is broken, and what was asked for."""

    engine: Engine
    service: Service
    orders: str
    """The secret of the test, which may order what follows."""
    tokens: set[str] = field(factory=set)
    state: str = "running"
    requests: Counter[str] = field(factory=Counter)
    store: str = ""
    """The code of the error with which the store of volumes refuses every file, such as AccessDenied."""
    faults: list[tuple[int, str]] = field(factory=list)
    """Statuses, with Retry-After or without, of the next answers to the service."""

    def order(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Change what a test wants changed, and tell what was seen."""
        for name in ("tokens", "state", "faults", "store"):
            if name in wanted:
                setattr(self, name, set(wanted[name]) if name == "tokens" else wanted[name])
        if "revoked" in wanted:
            self.engine.grants.revoked = {(privilege, name) for privilege, name in wanted["revoked"]}
        self.engine.conflicts = wanted.get("conflicts", self.engine.conflicts)
        self.engine.lenient = wanted.get("lenient", self.engine.lenient)
        self.service.slow = wanted.get("slow", self.service.slow)
        if wanted.get("forget_sessions"):
            self.service.forget_sessions()
        told = {"statements": list(self.engine.statements), "requests": dict(self.requests)}
        if wanted.get("clear"):
            self.engine.statements.clear()
            self.requests.clear()
        return told


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, door: Door, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.door, self.processor = door, TCLIService.Processor(door.service)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up, or are killed, are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: Server

    def serve(self) -> None:
        address = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        body, path, door = self.rfile.read(size), unquote(address.path), self.server.door
        if len(body) < size:  # the client died in the middle
            self.close_connection = True
        elif path == "/orders" and self.headers.get("Authorization") == f"Bearer {door.orders}":
            self._answer(200, json.dumps(door.order(json.loads(body))).encode())
        elif path.startswith(f"{PREFIX}/"):
            door.requests[f"{self.command} file"] += 1
            if door.store:
                self._answer(403, f"<Error><Code>{door.store}</Code></Error>".encode())
                return
            signature = parse_qs(address.query).get("X-Amz-Signature", [""])[0]
            self._answer(*door.engine.volumes.serve(self.command, path.removeprefix(PREFIX), signature, body))
        else:
            self._serve_sql(path, body)

    do_GET = do_PUT = do_POST = do_DELETE = serve  # noqa: N815  # names that the library asks for

    def _serve_sql(self, path: str, body: bytes) -> None:
        door = self.server.door
        door.requests["sql"] += 1
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in door.tokens:
            self._refuse(403 if self.headers.get("Authorization") else 401, "Invalid access token.")
        elif path != WAREHOUSE:
            self._refuse(404, "RESOURCE_DOES_NOT_EXIST: No such warehouse.")
        elif door.faults:
            status, wait = door.faults.pop(0)
            self._refuse(status, "ordered by a test", **({"Retry-After": wait} if wait else {}))
        elif door.state in STATES:
            status, text, headers = STATES[door.state]
            self._refuse(status, text, **headers)
        else:
            BASE.set(f"http://{self.headers['Host']}")
            asked, answer = TMemoryBuffer(body), TMemoryBuffer()
            self.server.processor.process(TBinaryProtocol(asked), TBinaryProtocol(answer))
            self._answer(200, answer.getvalue(), **{"Content-Type": "application/x-thrift"})

    def _refuse(self, status: int, text: str, **headers: str) -> None:
        self._answer(status, json.dumps({"message": text}).encode(), **{"x-databricks-reason-phrase": text, **headers})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if status != 204 or name != "Content-Length":
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent: `requests` says it."""
