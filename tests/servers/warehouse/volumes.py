"""Volumes of Unity Catalog as folders: /Volumes/<catalog>/<schema>/<volume>/..., and the statements about files in them."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import uuid
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
from attrs import frozen

from warehouse.rules import Grants, SqlError

PREFIX = "/presigned"
LITERAL = r"'((?:[^'\\]|\\.|'')*)'"
STATEMENT = {
    "PUT": re.compile(rf"PUT\s+{LITERAL}\s+INTO\s+{LITERAL}(\s+OVERWRITE)?\s*", re.IGNORECASE),
    "GET": re.compile(rf"GET\s+{LITERAL}\s+TO\s+{LITERAL}\s*", re.IGNORECASE),
    "REMOVE": re.compile(rf"REMOVE\s+{LITERAL}\s*", re.IGNORECASE),
    "LIST": re.compile(rf"LIST\s+{LITERAL}(?:\s+LIMIT\s+(\d+))?\s*", re.IGNORECASE),
}


@frozen
class Volumes:
    """All volumes, and the key that makes their addresses good for one file and one purpose only."""

    root: Path
    grants: Grants
    key: bytes = os.urandom(16)

    def create(self, name: str, if_absent: bool) -> None:
        folder = self.root.joinpath(*name.split("."))
        if folder.exists() and not if_absent:
            raise SqlError("VOLUME_ALREADY_EXISTS", f"Cannot create volume `{name}` because it already exists.", "42000")
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, where: str, privilege: str) -> Path:
        """On disk; the volume must be there, and may be used so."""
        parts = where.split("/")
        if parts[:2] != ["", "Volumes"] or len(parts) < 5 or {".", ".."} & set(parts):
            raise SqlError("PATH_NOT_FOUND", f"Path does not exist: {where}.", "42K03")
        name = ".".join(parts[2:5])
        if not self.root.joinpath(*parts[2:5]).is_dir():
            raise SqlError("VOLUME_NOT_FOUND", f"Volume '{name}' does not exist.", "42704")
        self.grants.require(privilege, "Volume", name)
        return self.root.joinpath(*parts[2:])

    def signature(self, operation: str, where: str) -> str:
        return hmac.new(self.key, f"{operation} {where}".encode(), hashlib.sha256).hexdigest()

    def run(self, sql: str, base: str) -> tuple[pa.Table, bool]:
        """The answer to a statement about files, and whether the client is to do the work."""
        operation = sql.split(None, 1)[0].upper()
        match = STATEMENT[operation].fullmatch(sql)
        if not match:
            raise SqlError("PARSE_SYNTAX_ERROR", f"Syntax error at or near '{operation}'.", "42601")
        if operation == "LIST":
            return self._listed(text_of(match[1]), int(match[2] or 1_000_000)), False
        where, local = (match[1], None) if operation == "REMOVE" else (match[2], match[1]) if operation == "PUT" else (match[1], match[2])
        where, local = text_of(where), None if local is None else text_of(local)
        file = self.path(where, "READ VOLUME" if operation == "GET" else "WRITE VOLUME")
        if operation == "PUT" and not match[3] and file.exists():
            raise SqlError("FILE_ALREADY_EXISTS", f"{where} exists.", "42710")
        url = f"{base}{PREFIX}{quote(where)}?X-Amz-Expires=900&X-Amz-Signature={self.signature(operation, where)}"
        columns = {"operation": [operation], "localFile": pa.array([local], pa.string()), "presignedUrl": [url], "headers": ["{}"]}
        return pa.table(columns), True

    def _listed(self, where: str, limit: int) -> pa.Table:
        folder = self.path(where.rstrip("/"), "READ VOLUME")
        if not folder.is_dir():
            raise SqlError("PATH_NOT_FOUND", f"Path does not exist: {where}.", "42K03")
        found = sorted(folder.iterdir())[:limit]
        names = [one.name for one in found]
        paths = [f"dbfs:{where.rstrip('/')}/{name}" for name in names]
        sizes = [one.stat().st_size for one in found]
        return pa.table({"path": pa.array(paths, pa.string()), "name": pa.array(names, pa.string()), "size": pa.array(sizes, pa.int64())})

    # -- what the client does with a presigned address -----------------------------------------------------------------

    def serve(self, method: str, where: str, signature: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        operation = {"PUT": "PUT", "GET": "GET", "DELETE": "REMOVE"}.get(method, "")
        if not hmac.compare_digest(self.signature(operation, where), signature):
            return 403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
        file = self.root.joinpath(*where.split("/")[2:])
        if method == "PUT":
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{uuid.uuid4().hex}")
            part.write_bytes(body)
            part.replace(file)
            return 200, b""
        if not file.is_file():
            return 404, b"<Error><Code>NoSuchKey</Code></Error>"
        if method == "GET":
            return 200, file.read_bytes()
        file.unlink()
        return 204, b""


def text_of(literal: str) -> str:
    """What stands between the quotes of a literal."""
    return re.sub(r"\\(.)|''", lambda found: found[1] or "'", literal)
