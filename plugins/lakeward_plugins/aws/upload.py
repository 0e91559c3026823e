"""One object in one request: checked by the store as it arrives, and until a deadline."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lakeward import Retry

SLOWEST = 64_000  # bytes a second; an upload that is slower is given up and tried again


def put(client: Any, bucket: str, key: str, body: Path | bytes, sha256: str, timeout: float, **more: Any) -> None:
    """Write an object; `more` is what `put_object` takes. The store refuses content that does not have this sha256.

    Raises what the library does, TimeoutError after the deadline, and Retry for an answer that does not say that the object is stored.
    """
    checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
    with opened(body, timeout) as reader:
        answer = client.put_object(Bucket=bucket, Key=key, Body=reader, ChecksumAlgorithm="SHA256", ChecksumSHA256=checksum, **more)
    require_stored(answer, bucket, key)


def require_stored(answer: Mapping[str, Any], bucket: str, key: str) -> None:
    """Whatever answered, a captive portal say, may not have been the store, or the answer was cut short: then Retry."""
    if not (answer.get("ETag") or answer.get("Key") == key):  # of uploads in parts, Ceph says the key only
        raise Retry(f"s3://{bucket}/{key}: the answer does not say that the object is stored")


def opened(body: Path | bytes, timeout: float) -> Upload:
    """The body, to be read until a deadline: `timeout` seconds, and more for what is large."""
    source = io.FileIO(body) if isinstance(body, Path) else io.BytesIO(body)
    size = body.stat().st_size if isinstance(body, Path) else len(body)
    return Upload(source, time.monotonic() + timeout + size / SLOWEST)


class Upload(io.RawIOBase):
    """Bytes that are read until a deadline: the library's own timeouts begin anew with each piece."""

    def __init__(self, source: io.FileIO | io.BytesIO, end: float) -> None:
        self._source, self._end = source, end

    def read(self, size: int | None = -1) -> bytes:
        """The next piece; TimeoutError after the deadline."""
        if time.monotonic() > self._end:
            raise TimeoutError(f"the upload is slower than {SLOWEST // 1000} kB/s")
        return self._source.read(size) or b""

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always: the library measures it so, and goes back to the start to sign."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As with any file."""
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        """As with any file."""
        return self._source.tell()

    def close(self) -> None:
        """The file too."""
        self._source.close()
        super().close()
