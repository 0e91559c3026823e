"""A table in S3: credentials as AWS tools find them, and the spooled file put there as it is. The log is delta-rs's."""

from __future__ import annotations

import io
import logging
import os
import re
from pathlib import Path
from typing import Any

from attrs import define, field

from lakeward import OptionError, Refused
from lakeward.errors import LakewardError
from lakeward.secrets import Secret

# Below INFO they print keys, tokens and signatures; one prints a traceback when the head of an answer ends early, which the request tells.
QUIET = {"boto3": logging.INFO, "botocore": logging.INFO, "urllib3": logging.INFO, "urllib3.connection": logging.ERROR}
NO_KEYS = "check access_key_id, secret_access_key and session_token, or what the AWS chain finds"
NO_CONDITION = "the store has no conditional writes, without which two writers would lose rows: use another store"
REMEDY = {  # what S3 says, and what a human does about it
    "NoSuchBucket": "make the bucket, or correct `path`",
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "401 Unauthorized"), NO_KEYS),
    "AccessDenied": "check the credentials, and that they may s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket there",
    **dict.fromkeys(("AuthorizationHeaderMalformed", "PermanentRedirect", "301 Moved"), "set `region` to that of the bucket"),
    **dict.fromkeys(("NotImplemented", "501 Not Implemented", "(501)"), NO_CONDITION),
    "RequestTimeTooSkewed": "", "403 Forbidden": NO_KEYS,
    "CERTIFICATE_VERIFY_FAILED": "check endpoint_url and certificates", "invalid peer certificate": "check endpoint_url and certificates",
}  # fmt: skip
ADDRESS = re.compile(r"https?://[^\s/@?#:]+(:\d{1,5})?(/[^\s@?#]*)?")
RETRIES = {"max_retries": "6", "backoff_config.init_backoff": "50ms", "backoff_config.max_backoff": "2s", "backoff_config.base": "2"}
BUSY, COLOUR = re.compile(r"SlowDown|\b(429|503)\b"), re.compile(r"\x1b\[\d+m↳?")


@define
class Store:
    """One bucket; a client is made when it is needed, and again when the credentials have changed."""

    bucket: str
    prefix: str
    region: str
    endpoint_url: str
    keys: tuple[Secret | None, Secret | None, Secret | None] = field(repr=False)
    """Access key id, secret access key, session token; all None to ask the AWS chain."""
    timeout: float
    _checked: bool = field(init=False, default=False, repr=False)
    _session: Any = field(init=False, default=None, repr=False)
    _client: Any = field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.endpoint_url and not ADDRESS.fullmatch(self.endpoint_url):  # nor a user or a password in it: messages show it
            raise OptionError("endpoint_url", "is not an address such as https://host:9000")

    @property
    def _endpoint(self) -> str:
        """Of a store that is not AWS, from the options or the environment; empty for AWS."""
        return self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")

    def options(self) -> dict[str, str]:
        """What delta-rs must know.

        To load a table takes many requests, so it tries each again before the kernel begins anew. A commit whose answer was lost is then
        met by itself: delta-rs says that another writer delivers for this sink, and the next look at the table finds the note.
        """
        key, secret, token = self._credentials()
        endpoint = self._endpoint
        known = {
            "aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token,
            "aws_region": self.region or self._open().region_name or "us-east-1",
            "aws_endpoint_url": endpoint, "aws_allow_http": "true" if endpoint.startswith("http://") else "",
            "aws_conditional_put": "etag", "timeout": f"{self.timeout:g}s", "connect_timeout": "5s", **RETRIES,
        }  # fmt: skip
        return {name: value for name, value in known.items() if value}

    def put(self, content: Path | bytes, name: str) -> None:
        """A file, or bytes, under a name in the table's folder. An attempt before may have put the same there."""
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as body:
            self._s3().put_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", Body=body, ContentType="application/vnd.apache.parquet")

    def get(self, name: str) -> bytes:
        """An object of the table."""
        return bytes(self._s3().get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")["Body"].read())

    def require_conditional(self) -> None:
        """Some stores ignore the condition of a write without a word; of two writers one would then lose its rows. Asked once.

        A mark stays in the folder of the log, where nobody looks at it.
        """
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # ships no types

        if self._checked or not self._endpoint:  # AWS has them
            return
        for _ in range(2):  # the second finds what the first wrote
            try:
                mark = f"{self.prefix}/_delta_log/.conditional_writes"
                self._s3().put_object(Bucket=self.bucket, Key=mark, Body=b"", IfNoneMatch="*")
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 412:
                    raise
                self._checked = True
                return
        raise Refused(f"s3://{self.bucket}/{self.prefix}: {NO_CONDITION}")

    def address(self) -> str:
        """Of the store."""
        return str(self._s3().meta.endpoint_url)

    def try_out(self, name: str) -> None:
        """Write an empty object of that name and remove it."""
        self._s3().put_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", Body=b"")
        self._s3().delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")

    def has(self, name: str) -> bool:
        """Whether there is an object of that name."""
        from botocore.exceptions import ClientError

        try:
            self._s3().head_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True

    def forget(self) -> None:
        """Look for credentials anew next time."""
        if self._client:
            self._client.close()
        self._client = self._session = None

    def _open(self) -> Any:
        if self._session is None:
            try:
                from boto3.session import Session  # type: ignore[import-untyped]  # only for tables in S3
            except ImportError as error:
                raise OptionError("path", "a table in S3 needs boto3: pip install 'lakeward[s3]'") from error
            for name, least in QUIET.items():
                logging.getLogger(name).setLevel(max(least, logging.getLogger(name).getEffectiveLevel()))
            names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
            given = {name: secret.reveal() for name, secret in zip(names, self.keys, strict=True) if secret}
            self._session = Session(**given, region_name=self.region or None)
        return self._session

    def _credentials(self) -> tuple[str, str, str]:
        """As they are now: the chain renews those of a role before they end."""
        found = self._open().get_credentials()
        if found is None:
            self.forget()
            raise Refused(f"s3://{self.bucket}/{self.prefix}: there are no credentials; {NO_KEYS}")
        frozen = [value or "" for value in found.get_frozen_credentials()[:3]]
        for value in frozen:
            Secret(value, "the AWS chain")  # from now on `redact` knows it, wherever it came from
        return frozen[0], frozen[1], frozen[2]

    def _s3(self) -> Any:
        if self._client is None:
            from botocore.config import Config  # type: ignore[import-untyped]

            config = Config(
                connect_timeout=5,
                read_timeout=self.timeout,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"} if self._endpoint else None,
                request_checksum_calculation="when_required",
            )
            self._client = self._open().client("s3", endpoint_url=self._endpoint or None, config=config)
        return self._client


def is_of_store(error: Exception) -> bool:
    """Whether the AWS library raised it: an answer that is cut short, in a date say, is a ValueError."""
    return type(error).__module__.partition(".")[0] in ("botocore", "boto3") or (
        isinstance(error, ValueError) and not isinstance(error, LakewardError)
    )


def trouble(said: str) -> tuple[str, str | None, bool]:
    """What S3 said, in one line; what a human must do, if somebody must; whether it wants fewer requests."""
    for word, remedy in REMEDY.items():
        if word in said:
            return told(said), remedy or None, False
    return told(said), None, bool(BUSY.search(said))


def told(said: str) -> str:
    """The code and message of S3's XML when it is there, else all, on one line and not too long."""
    code, message = re.search(r"<Code>(.*?)</Code>", said), re.search(r"<Message>(.*?)</Message>", said)
    text = f"the store answered {code[1]}: {message[1] if message else ''}" if code else COLOUR.sub("", said)
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:300]
