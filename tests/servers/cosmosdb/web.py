"""The HTTP side: who may do what, and what is asked for."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cosmosdb.documents import LARGEST, Account, Container, Wrong
from cosmosdb.sql import select

PAGE, LARGEST_PAGE = 100, 1000
"""Results in an answer, when nobody asks for another number, and when somebody asks for many."""
CONTROL = "stand-in"
"""First part of paths for tests alone, which need no key: GET tells of the account, POST changes its settings."""


class Server(ThreadingHTTPServer):
    """On a free port of loopback, unless told which."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.account = Account()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up, or are killed, are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """One request after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: Server

    def serve(self) -> None:
        """Answer, or say what is wrong."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [urllib.parse.unquote(part) for part in urllib.parse.urlsplit(self.path).path.split("/") if part]
        try:
            if parts[:1] == [CONTROL]:
                return self._control(json.loads(raw or "{}"))
            self._let_in(parts)
            if len(raw) > LARGEST:
                raise Wrong(413, "RequestEntityTooLarge", "Request size is too large")
            with self.server.account.lock:
                self._route(parts, json.loads(raw) if raw else None)
        except Wrong as wrong:
            self._answer(wrong.status, {"code": wrong.code, "message": f"{wrong}\r\nActivityId: {uuid.uuid4()}"}, **wrong.headers)
        except (json.JSONDecodeError, UnicodeDecodeError):
            self._answer(400, {"code": "BadRequest", "message": "The input content is invalid because it is no JSON"})

    do_GET = do_POST = do_PUT = do_DELETE = serve  # noqa: N815  # names that the library asks for

    def _control(self, changes: dict[str, Any]) -> None:
        account = self.server.account
        with account.lock:
            account.change(changes)
            self._answer(200, {"throttled": account.throttled, "requests": account.requests, "script": len(account.script)})

    def _let_in(self, parts: list[str]) -> None:
        """The signature of the request is made with one of the keys, and that may do it."""
        if self.server.account.firewall:
            raise Wrong(403, "Forbidden", "Request originated from IP 127.0.0.1 through public internet. This is blocked by your "
                "Cosmos DB account firewall settings.")  # fmt: skip
        kind, link = (parts[-1], parts[:-1]) if len(parts) % 2 else (parts[-2] if parts else "", parts)
        message = f"{self.command.lower()}\n{kind.lower()}\n{'/'.join(link)}\n{self.headers.get('x-ms-date', '').lower()}\n\n"
        pairs = urllib.parse.unquote(self.headers.get("authorization", "")).split("&")
        given = dict(pair.split("=", 1) for pair in pairs if "=" in pair).get("sig", "")
        for key, may in self.server.account.keys.items():
            wanted = base64.b64encode(hmac.new(base64.b64decode(key), message.encode(), hashlib.sha256).digest()).decode()
            if hmac.compare_digest(wanted, given):
                if may == "read" and self.command != "GET" and not self._is_query():
                    raise Wrong(
                        403, "Forbidden", "Insufficient permissions provided in the authorization header for the corresponding request."
                    )
                return
        raise Wrong(401, "Unauthorized", "The input authorization token can't serve the request. The wrong key is being used or the "
            "expected payload is not built as per the protocol.")  # fmt: skip

    def _route(self, parts: list[str], body: Any) -> None:
        account = self.server.account
        if not parts:
            here = [{"name": "loopback", "databaseAccountEndpoint": f"{self.server.url}/"}]
            return self._answer(200, {
                "id": "loopback", "_rid": "loopback", "writableLocations": here, "readableLocations": here,
                "enableMultipleWriteLocations": False,
                "userConsistencyPolicy": {"defaultConsistencyLevel": "Session"}, "queryEngineConfiguration": "{}",
            })  # fmt: skip
        if len(parts) <= 2:
            return self._resource(account.databases, parts[1:], body, {})
        database = account.database(parts[1])
        if len(parts) <= 4:
            keys = [one["paths"] for one in (body or {}).get("uniqueKeyPolicy", {}).get("uniqueKeys", [])]
            made = Container(body["partitionKey"]["paths"], _rid(body["id"]), keys) if body else None
            return self._resource(database, parts[3:], body, made)
        container = account.container(parts[1], parts[3])
        if parts[4] == "pkranges":
            whole = {"id": "0", "minInclusive": "", "maxExclusive": "FF", "_rid": "r", "status": "online", "parents": []}
            if self.headers.get("If-None-Match") == '"1"':
                return self._answer(304, None)
            return self._answer(200, {"PartitionKeyRanges": [whole], "_count": 1, "_rid": container.rid}, etag='"1"')
        return self._documents(container, parts[5:], body)

    def _resource(self, found: dict[str, Any], name: list[str], body: Any, made: Any) -> None:
        """A database or a container: made, read or removed."""
        if self.command == "POST":
            if body["id"] in found:
                raise Wrong(409, "Conflict", "Resource with specified id or name already exists.")
            found[body["id"]] = made
            return self._answer(201, _properties(body["id"], made))
        if not name or name[0] not in found:
            raise Wrong(404, "NotFound", "Resource Not Found", x_ms_substatus="0")
        if self.command == "DELETE":
            del found[name[0]]
            return self._answer(204, None)
        return self._answer(200, _properties(name[0], found[name[0]]))

    def _documents(self, container: Container, name: list[str], body: Any) -> None:
        account, given = self.server.account, self.headers.get("x-ms-documentdb-partitionkey")
        partition = json.dumps(json.loads(given)[0]) if given and json.loads(given) else None
        account.requests += 1
        is_batch = self._says("x-ms-cosmos-is-batch-request")
        script = account.follow_script(is_batch)
        if self._is_query():
            self._query(container, partition, body)
        elif partition is None:
            raise Wrong(400, "BadRequest", "x-ms-partitionkey header is not specified")
        elif is_batch:
            account.charge(sum(map(_charge, body)))
            self._answer(*container.batch(partition, body, script, self._is_brief()))
        else:
            self._one(container, partition, name, body)

    def _one(self, container: Container, partition: str, name: list[str], body: Any) -> None:
        """An operation on one document."""
        if_match, only = self.headers.get("If-Match"), (name or [""])[0]
        self.server.account.charge(1 if self.command == "GET" else _charge(body))
        create = "upsert" if self._says("x-ms-documentdb-is-upsert") else "create"
        operation = {"POST": create, "PUT": "replace", "GET": "read", "DELETE": "delete"}[self.command]
        status, document = container.write(partition, operation, body or {}, only, if_match)
        etag = {"etag": document["_etag"]} if document else {}
        self._answer(status, None if self._is_brief() and self.command != "GET" else document, **etag)

    def _query(self, container: Container, partition: str | None, body: Any) -> None:
        if partition is None and not self._says("x-ms-documentdb-query-enablecrosspartition"):
            raise Wrong(400, "BadRequest", "Cross partition query is required but disabled.")
        if self._says("x-ms-cosmos-is-query-plan-request"):
            raise Wrong(400, "BadRequest", "There are no query plans here: there is one physical partition.")
        self.server.account.charge(3)
        parameters = {one["name"]: one["value"] for one in body.get("parameters") or []}
        found = select(body["query"], parameters, container.documents(partition))
        asked, start = int(self.headers.get("x-ms-max-item-count") or -1), int(self.headers.get("x-ms-continuation") or 0)
        end = start + (min(asked, LARGEST_PAGE) if asked > 0 else PAGE)
        more = {"x_ms_continuation": str(end)} if end < len(found) else {}
        self._answer(200, {"Documents": found[start:end], "_count": len(found[start:end]), "_rid": container.rid}, **more)

    def _is_query(self) -> bool:
        return self._says("x-ms-documentdb-isquery") or "query+json" in self.headers.get("Content-Type", "")

    def _is_brief(self) -> bool:
        """Who writes does not want to read what is written."""
        return self.headers.get("Prefer", "") == "return=minimal"

    def _says(self, header: str) -> bool:
        return bool(self.headers.get(header, "").lower() == "true")

    def _answer(self, status: int, body: Any, **headers: str) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        always = {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            "x-ms-request-charge": "1",
            "x-ms-session-token": "0:-1#1",
        }
        for name, value in {**always, **{name.replace("_", "-"): value for name, value in headers.items()}}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silent."""


def _charge(body: Any) -> float:
    """About five request units for each kilobyte."""
    return 5.0 * (1 + len(json.dumps(body)) // 1024)


def _rid(name: str) -> str:
    return base64.b64encode(hashlib.sha256(name.encode()).digest()[:8]).decode()


def _properties(name: str, found: Any) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if isinstance(found, Container):
        more = {"partitionKey": {"paths": found.paths, "kind": "Hash", "version": 2}}
        more |= {"uniqueKeyPolicy": {"uniqueKeys": [{"paths": paths} for paths in found.unique]}} if found.unique else {}
    return {"id": name, "_rid": found.rid if isinstance(found, Container) else _rid(name), "_self": "", "_etag": '"0"', "_ts": 0, **more}
