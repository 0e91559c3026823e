"""Rows as JSON to an HTTP endpoint, in parts that carry the same key and the same bytes on every retry.

A receiver that acts on each `Idempotency-Key` once takes every row once. A part is a run of rows of the parcel; its name says
which, so that another `batch` makes other keys. Part of the parcel's sha256 is in the key as well: a state directory that was copied, or
restored from an old copy, gives tokens again. So no key ever stands for other rows.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import re
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow as pa
from attrs import define, field

from lakeward import Encoding, OptionError, Parcel, Receipt, Refused, Rejected, Retry, option
from lakeward.secrets import Secret, redact
from lakeward.wording import one_line

AGAIN = {408, 409, 425, 429}  # 409: the receiver is still busy with the same key
REFUSED = {
    401: "check the token",
    403: "check the token and what it allows",
    404: "check the url",
    405: "check the url",
    407: "check the proxy",
    410: "check the url",
    413: "set `batch` to fewer rows",
}
MANY = 100  # rejected rows of a parcel; more are sent only while most rows are taken
SHOWN = 200  # characters of an answer in a message
LONGEST = 3600.0  # seconds; a receiver must not send a pipeline to sleep for ever
NAME, VALUE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(r"[!-~]([ -~\t]*[!-~])?")  # of headers, RFC 9110
OURS = {"idempotency-key", "content-type", "content-length", "transfer-encoding", "accept-encoding", "host"}


@define
class WebhookSink:
    """POSTs `{"pipeline", "sink", "token", "part", "rows"}` for every `batch` rows, with the header `Idempotency-Key`.

    Timestamps are ISO 8601, bytes are base64, decimals are text, and floats that JSON does not have are "NaN", "Infinity" and
    "-Infinity". The first part that fails ends the attempt; the next attempt sends every part again.
    """

    url: str | Secret = option(help="Where to post; a secret when the address itself is one.")
    token: Secret | None = option(None, help="Sent as `Authorization: Bearer <token>`.")
    headers: dict[str, str | Secret] = option(factory=dict, help="More headers for every request.")
    timeout: timedelta = option(timedelta(seconds=10), help="Longest wait for a connection and for each piece of an answer.")
    batch: int = option(100, help="Rows in one request.", unit="rows", minimum=1)
    row_key: bool = option(False, help="Send the row key, the column `_row`, too.")
    _place: httpx.URL = field(init=False, repr=False)
    _client: httpx.Client | None = field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        try:
            self._place = httpx.URL(_text(self.url))
        except httpx.InvalidURL:
            raise OptionError("url", "is not a URL; write it as https://host/path") from None
        if self._place.scheme not in ("http", "https") or not self._place.host:
            raise OptionError("url", "is not an http or https URL; write it as https://host/path")
        if self._place.userinfo:
            raise OptionError("url", "must not hold a user or password; use `token` or `headers` with a secret")
        if isinstance(self.url, Secret):  # a receiver may repeat a part of it, as in "no such path"
            for part in (self._place.raw_path.decode(), self._place.path, self._place.query.decode()):
                Secret(part, self.url.reference)  # from now on `redact` knows it
        ours = OURS | ({"authorization"} if self.token else set())
        for name, text in [("Authorization", self.token), *self.headers.items()]:
            path = "token" if text is self.token else f"headers.{name}"
            if not NAME.fullmatch(name) or (text is not None and not VALUE.fullmatch(_text(text))):
                raise OptionError(path, "has characters that a header cannot carry, such as a line break at its end")
            if path != "token" and name.lower() in ours:
                raise OptionError(path, "is set by the sink; leave it out")

    @property
    def encoding(self) -> Encoding:
        """The default, so that the file is shared with other sinks."""
        return Encoding(row_key=self.row_key)

    def probe(self, schema: pa.Schema) -> str:
        """Where rows would go. Sends nothing: a receiver cannot tell a trial from the real thing."""
        return f"would post up to {self.batch} rows at a time to {self._origin}"

    def deliver(self, parcel: Parcel) -> Receipt:
        """Post all parts in order; whatever was taken before is absorbed by its key. The receipt tells bad rows behind the first part."""
        first = parts = 0
        rejected: dict[int, str] = {}
        for rows in _parts(parcel, self.batch):
            try:
                self._post(parcel, first, rows)
            except Rejected as error:
                if not first:  # nothing of the parcel was taken, so lakeward may send it in parts with keys of their own
                    raise
                rejected |= self._bad_rows(parcel, first, rows, error)
                if len(rejected) > MANY and 2 * len(rejected) > first:
                    raise Refused(
                        f"{len(rejected)} of {first + len(rows)} rows were rejected, the last ones so: {error}; look why"
                    ) from error
            first, parts = first + len(rows), parts + 1
        return Receipt(self._origin, {"parts": parts, "rows": first - len(rejected)}, rejected)

    def _bad_rows(self, parcel: Parcel, first: int, rows: list[dict[str, Any]], error: Rejected) -> dict[int, str]:
        """By halves, under keys that are the same in every attempt; all other rows are taken then."""
        if len(rows) == 1:
            return {first: str(error)}
        bad: dict[int, str] = {}
        for start, end in ((0, len(rows) // 2), (len(rows) // 2, len(rows))):
            try:
                self._post(parcel, first + start, rows[start:end])
            except Rejected as again:
                bad |= self._bad_rows(parcel, first + start, rows[start:end], again)
        return bad

    def close(self) -> None:
        """Close connections that are kept open between requests."""
        if self._client:
            self._client.close()
        self._client = None

    @property
    def _origin(self) -> str:
        """The address without path and query: those may be secret."""
        return f"{self._place.scheme}://{self._place.netloc.decode()}"

    def _post(self, parcel: Parcel, first: int, rows: list[dict[str, Any]]) -> None:
        token, part = parcel.token, f"{first}-{first + len(rows) - 1}"
        body = {"pipeline": token.pipeline, "sink": token.sink, "token": token.name, "part": part, "rows": rows}
        headers = {name: _text(value) for name, value in self.headers.items()}
        headers |= {"Authorization": f"Bearer {self.token.reveal()}"} if self.token else {}
        headers |= {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        headers |= {"Idempotency-Key": f"{quote(str(token), safe='/')}/{parcel.sha256[:16]}/{part}"}
        content = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        try:
            with self._open().stream("POST", self._place, content=content, headers=headers) as response:
                said = next(response.iter_raw(8 * SHOWN), b"").decode("utf-8", "replace")  # no more: it may be endless
        except httpx.TransportError as error:
            raise self._unreached(error) from None  # its cause may quote a header
        if not response.is_success:
            raise self._unhappy(response, said, part)

    def _open(self) -> httpx.Client:
        if not self._client:
            logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines hold the whole address, which may be secret
            self._client = httpx.Client(timeout=self.timeout.total_seconds(), follow_redirects=False)  # the token is for one host
        return self._client

    def _unreached(self, error: httpx.TransportError) -> Exception:
        cause: BaseException | None = error
        while cause:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return Refused(f"{self._origin}: its certificate is not trusted: {cause.verify_message}; check url and certificates")
            cause = cause.__cause__ or cause.__context__
        return Retry(one_line(redact(f"{self._origin}: {type(error).__name__}: {error}"), 2 * SHOWN))

    def _unhappy(self, response: httpx.Response, said: str, part: str) -> Exception:
        status = response.status_code
        what = f"{self._origin} answered {status} to rows {part}"
        if shown := one_line(redact(said), SHOWN):  # a receiver may echo secrets
            what += f": {shown}"
        if status in AGAIN or status >= 500:
            return Retry(what, after=_retry_after(response))
        if status < 400:
            return Refused(f"{what}; if the address has moved and you trust the new one, write it into `url`")
        if status in REFUSED:
            return Refused(f"{what}; {REFUSED[status]}")
        return Rejected(what)


def _text(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait, from seconds or an HTTP date; by the receiver's clock, when it tells it."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return min(float(text), LONGEST)
    try:
        then = parsedate_to_datetime(text)
        now = parsedate_to_datetime(response.headers["Date"]) if "Date" in response.headers else datetime.now(UTC)
        return min(max(0.0, (then - now).total_seconds()), LONGEST)
    except (ValueError, TypeError):  # no date, or one without a zone
        return None


# -- rows --------------------------------------------------------------------------------------------------------------


def _parts(parcel: Parcel, size: int) -> Iterator[list[dict[str, Any]]]:
    """Runs of `size` rows, whatever the batches of the file are."""
    rows = (row for batch in parcel.batches() for row in _rows(batch))
    return iter(lambda: list(islice(rows, size)), [])


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows of what JSON knows, a thousand Python objects at a time."""
    for start in range(0, batch.num_rows, 1_000):
        columns = [_jsonable(column) for column in batch.slice(start, 1_000).columns]
        for values in zip(*columns, strict=True):
            yield dict(zip(batch.schema.names, values, strict=True))


def _jsonable(column: pa.Array[Any]) -> list[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz:  # as it stands in UTC; needs no time zone database
        return [text and text + "Z" for text in _iso(column.cast(pa.timestamp(kind.unit, "UTC")).view(pa.timestamp(kind.unit)))]
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        return _iso(column)
    if pa.types.is_duration(kind):
        return [None if count is None else f"{count}{kind.unit}" for count in column.cast(pa.int64()).to_pylist()]
    return [_plain(value) for value in column.to_pylist()]


def _iso(column: pa.Array[Any]) -> list[Any]:
    """By way of text: Python has no nanoseconds."""
    return [text and str(text).replace(" ", "T") for text in column.cast(pa.string()).to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
