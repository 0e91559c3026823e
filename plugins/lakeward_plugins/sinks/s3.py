"""Parquet files in an S3 bucket: each parcel is one object under the name of its token, written only when nothing is there.

The spooled file is shipped as it is, with its sha256 beside it. When an answer is lost, the next attempt finds the object
("412 Precondition Failed"), sees the same sha256, and is done: the rows are there once. Any store with the S3 API will do.
"""

from __future__ import annotations

import base64
import io
import logging
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import boto3  # type: ignore[import-untyped]  # boto3 and botocore ship no types
import botocore.exceptions as aws  # type: ignore[import-untyped]
import pyarrow as pa
from attrs import define, field
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

from lakeward import Encoding, OptionError, Parcel, Receipt, Refused, Rejected, Retry, option
from lakeward.secrets import Secret

log = logging.getLogger("lakeward.s3")
SLOWEST = 64_000  # bytes a second; an upload that is slower is given up and tried again
# Below INFO they print keys, tokens and signatures; below ERROR the last one prints a traceback for each answer that is cut short.
QUIET = {"boto3": logging.INFO, "botocore": logging.INFO, "urllib3": logging.INFO, "urllib3.connection": logging.ERROR}
BUCKET, SHA256 = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]|arn:[ -~]+"), re.compile(r"[0-9a-f]{64}")
ADDRESS, FOLDER = re.compile(r"https?://[^\s/@?#:]+(:\d{1,5})?(/[^\s@?#]*)?"), re.compile(r"(?!\.\.?(/|$))[^/]+(/(?!\.\.?(/|$))[^/]+)*")
REMEDY: dict[int | str, str] = {
    **dict.fromkeys((401, "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"), "check access_key_id, "
        "secret_access_key and session_token, or what the AWS chain finds"),
    **dict.fromkeys((301, 307, "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"), "set `region` to that of the bucket"),
    403: "check the credentials, and that they may s3:PutObject and s3:GetObject there",
    404: "make the bucket, or correct `bucket`",
    501: "it lacks what this sink needs: use another store",
}  # fmt: skip
AGAIN = {408, 409, 425, 429}  # 409: another write of the same key is going on
DAMAGED = {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentChecksumMismatch"}  # on the way; all are 400
ODD = (ResponseParserError, ValueError, TimeoutError)  # an answer cut short in its XML or in a date; the deadline, while the file is hashed
PASSING = (*ODD, aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError, aws.CredentialRetrievalError)


@define
class S3Sink:
    """One Parquet object for each parcel, `s3://<bucket>/<prefix>/<token>.parquet`. A prefix belongs to one sink.

    Its credentials need `s3:PutObject` and `s3:GetObject` under the prefix, and nothing else; `--dry-run` says more when they have
    `s3:ListBucket` as well. A store that refuses conditional writes is asked for the object before each write.
    """

    bucket: str = option(help="Name of the bucket; it must be there.")
    prefix: str = option("", help="Folder in the bucket, such as `raw/north`.")
    region: str = option("", help="Region of the bucket; left out, what the AWS environment says.")
    endpoint_url: str = option("", help="Address of a store that is not AWS, such as https://minio.local:9000.")
    access_key_id: Secret | None = option(None, help="With `secret_access_key`; left out, the AWS chain is asked, anew after each refusal.")
    secret_access_key: Secret | None = option(None, help="Of that access key.")
    session_token: Secret | None = option(None, help="Of temporary credentials.")
    compression: Literal["snappy", "zstd", "gzip", "none"] = option("snappy", help="How pages of the files are compressed.")
    row_key: bool = option(False, help="Keep the row key, the column `_row`.")
    inserted_at: str = option("", help="Add a column of this name, such as databricks_inserted_at, with the time of spooling.")
    connect_timeout: timedelta = option(timedelta(seconds=5), help="Longest wait for a connection, or to send a piece.", minimum=0.1)
    timeout: timedelta = option(timedelta(seconds=60), help="Longest wait for an answer; an upload gets 1 s more per 64 kB.", minimum=0.1)
    _folder: str = field(init=False, repr=False, eq=False)
    _client: Any = field(init=False, default=None, repr=False, eq=False)
    _conditional: bool = field(init=False, default=True, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        self.prefix = self.prefix.strip("/")
        self._folder = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        if not BUCKET.fullmatch(self.bucket):
            raise OptionError("bucket", f"{self.bucket!r} cannot be a bucket: letters, digits, dots and hyphens, at least three")
        if self.prefix and not (FOLDER.fullmatch(self.prefix) and self.prefix.isprintable()):
            raise OptionError("prefix", f"{self.prefix!r} is not a folder; write names with / between them, without . and ..")
        if self.endpoint_url and not ADDRESS.fullmatch(self.endpoint_url):  # nor a user or password in it: messages show it
            raise OptionError("endpoint_url", "is not an address such as https://host:9000")
        if bool(self.access_key_id) != bool(self.secret_access_key) or (self.session_token and not self.access_key_id):
            raise OptionError("access_key_id", "and `secret_access_key` go together, and `session_token` with them; give all or none")

    @property
    def encoding(self) -> Encoding:
        """Files as the options say."""
        return Encoding(self.compression, self.row_key, self.inserted_at)

    def probe(self, schema: pa.Schema) -> str:
        """Where objects would go. Lists one object, because only an answer with a body says which of the credentials is wrong."""
        doubt = ""
        with self._sorted_errors(self._folder):
            try:
                self._open().list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
            except aws.ClientError as error:
                if _code(error) != "AccessDenied":
                    raise
                doubt = "; whether it may write there only the first parcel will show, as these credentials may not list the bucket"
        return f"would write Parquet objects ({self.compression}, {len(schema)} columns) to {self._folder}{doubt}"

    def deliver(self, parcel: Parcel) -> Receipt:
        """Put the parcel's file under its name, or see that an earlier attempt did."""
        key = f"{self.prefix}/{parcel.token.name}.parquet".removeprefix("/")
        with self._sorted_errors(f"s3://{self.bucket}/{key}"):
            there = (not self._conditional and self._has(key, parcel)) or not self._put(key, parcel)
        return Receipt(f"s3://{self.bucket}/{key}", {"bytes": parcel.path.stat().st_size, "already_there": there})

    def close(self) -> None:
        """Close connections that are kept open between requests."""
        if self._client:
            self._client.close()
        self._client = None

    def _open(self) -> Any:
        if not self._client:
            for name, least in QUIET.items():
                logging.getLogger(name).setLevel(max(least, logging.getLogger(name).getEffectiveLevel()))
            names = ("access_key_id", "secret_access_key", "session_token")
            secrets = {f"aws_{name}": secret.reveal() for name in names if (secret := getattr(self, name))}
            session = boto3.session.Session(**secrets, region_name=self.region or None)
            if found := session.get_credentials():
                for value in found.get_frozen_credentials()[:3]:
                    Secret(value or "", "the AWS chain")  # from now on `redact` knows it, wherever it came from
            config = Config(
                connect_timeout=self.connect_timeout.total_seconds(),
                read_timeout=self.timeout.total_seconds(),
                retries={"total_max_attempts": 1},  # the kernel tries again; a library that does so as well multiplies the attempts
                s3={"addressing_style": "path"} if self.endpoint_url else None,  # stores of one's own rarely have a name for each bucket
                request_checksum_calculation="when_required",  # the sha256 goes along; some stores do not know the library's newer ones
            )
            self._client = session.client("s3", endpoint_url=self.endpoint_url or None, config=config)
            self._client.meta.events.register("before-call.s3", _stay)
        return self._client

    def _put(self, key: str, parcel: Parcel) -> bool:
        """Write the object; False when it was there already."""
        condition = {"IfNoneMatch": "*"} if self._conditional else {}
        try:
            with _Upload(parcel.path, self.timeout.total_seconds()) as body:
                answer = self._open().put_object(
                    Bucket=self.bucket, Key=key, Body=body, ContentType="application/vnd.apache.parquet",
                    Metadata={"sha256": parcel.sha256}, ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(parcel.sha256)).decode(), **condition,
                )  # fmt: skip
        except aws.ClientError as error:
            if _status(error) == 412:
                return not self._has(key, parcel, found=True)
            if _status(error) == 501 and self._conditional:
                self._conditional = False
                log.warning("%s: the store has no conditional writes; it is asked for each object before that is written", self._folder)
                return not self._has(key, parcel) and self._put(key, parcel)
            raise
        if not answer.get("ETag"):  # whatever answered, a captive portal say, was not the store, or the answer was cut short
            raise Retry(f"s3://{self.bucket}/{key}: the answer does not say that the object is stored")
        return True

    def _has(self, key: str, parcel: Parcel, found: bool = False) -> bool:
        """Whether the object is there with the content of the parcel; `Refused` when with another."""
        where = f"s3://{self.bucket}/{key}"
        try:
            head = self._open().head_object(Bucket=self.bucket, Key=key)
        except aws.ClientError as error:
            if _status(error) != 404:
                raise
            if found:
                raise Retry(f"{where}: was there a moment ago and is gone") from error
            return False
        sha256, size = head["Metadata"].get("sha256", ""), parcel.path.stat().st_size
        if sha256 != parcel.sha256 and SHA256.fullmatch(sha256):
            raise Refused(f"{where} is there already with other content; give this sink a prefix of its own, or move that object away")
        if sha256 != parcel.sha256 or head.get("ContentLength") != size:  # an answer that is cut short is one for the library still
            raise Retry(f"{where} is there already, but not with this sha256 and {size} bytes; if that stays so, move it away")
        return True

    @contextmanager
    def _sorted_errors(self, where: str) -> Iterator[None]:
        try:
            yield
        except (aws.ClientError, aws.BotoCoreError, *ODD) as error:
            problem = _unhappy(error, where) if isinstance(error, aws.ClientError) else _unreached(error, where)
            if isinstance(problem, Refused):
                self.close()  # the next attempt looks for credentials anew
            raise problem from None  # its cause holds the whole answer


class _Upload(io.FileIO):
    """A file that is read until a deadline: the library's own timeouts begin anew with each piece."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__(path)
        self._end = time.monotonic() + timeout + path.stat().st_size / SLOWEST

    def read(self, size: int | None = -1) -> bytes:
        """The next piece; TimeoutError after the deadline."""
        if time.monotonic() > self._end:
            raise TimeoutError(f"the upload is slower than {SLOWEST // 1000} kB/s")
        return super().read(size) or b""


def _stay(params: dict[str, Any], **_: object) -> None:
    """Tell the library to follow no redirect: where everything is redirected, as in a hotel, it does so without end."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


# -- errors of the library, as what the kernel knows -------------------------------------------------------------------


def _status(error: aws.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: aws.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _unhappy(error: aws.ClientError, where: str) -> Exception:
    """What the store answered. No 400 is about a row, so none makes dead letters: the rows wait until somebody has looked."""
    status, code = _status(error), _code(error)
    said = "" if code == str(status) else f" {_short(code)}"  # so the library fills it when there is no body
    what = f"{where}: the store answered {status}{said}: {_short(error.response.get('Error', {}).get('Message', ''))}"
    if code == "RequestTimeTooSkewed":
        return Retry(f"{what}; set the clock of this machine")
    if status == 413 or code == "EntityTooLarge":
        return Rejected(what)
    if status in AGAIN or (status >= 500 and status != 501) or code in DAMAGED:
        wanted = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
        return Retry(what, float(wanted) if wanted.isdecimal() else None, throttled=status in (429, 503) or code == "SlowDown")
    return Refused(f"{what}; {REMEDY.get(code) or REMEDY.get(status, 'check the options of this sink')}")


def _unreached(error: Exception, where: str) -> Exception:
    """No answer, or none that can be understood."""
    cause: object = error
    for _ in range(10):  # libraries wrap each other's errors, in this way or that
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Refused(f"{where}: the store's certificate is not trusted: {cause.verify_message}; check endpoint_url and certificates")
        reasons = [getattr(cause, "kwargs", {}).get("error"), getattr(cause, "__cause__", None), getattr(cause, "__context__", None)]
        cause = next(filter(None, reasons), None)
    what = f"{where}: {type(error).__name__}: {_short(error)}"
    if isinstance(error, PASSING):
        return Retry(what)
    return Refused(f"{what}; check the options of this sink and the AWS environment")


def _short(text: object) -> str:
    """On one line, and not too long, whatever it is that others say."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())[:200]
