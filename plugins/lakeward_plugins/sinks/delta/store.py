"""A table in S3: credentials as AWS tools find them, and the spooled file put there as it is. The log is delta-rs's."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from attrs import define, field

from lakeward import OptionError, Refused
from lakeward.errors import LakewardError
from lakeward.wording import one_line
from lakeward_plugins.aws.account import Account, credentials
from lakeward_plugins.aws.upload import put

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
CONNECT = timedelta(seconds=5)
RETRIES = {
    "connect_timeout": "5s",
    "retry_timeout": "60s",
    "max_retries": "6",
    "backoff_config.init_backoff": "50ms",
    "backoff_config.max_backoff": "2s",
    "backoff_config.base": "2",
}
BUSY, COLOUR = re.compile(r"SlowDown|\b(429|503)\b"), re.compile(r"\x1b\[\d+m↳?")


@define
class Store:
    """One bucket; a client is made when it is needed, and again when the credentials have changed."""

    bucket: str
    prefix: str
    account: Account
    _checked: bool = field(init=False, default=False, repr=False)
    _session: Any = field(init=False, default=None, repr=False)
    _client: Any = field(init=False, default=None, repr=False)

    def options(self) -> dict[str, str]:
        """What delta-rs must know.

        To load a table takes many requests, so it tries each again before the kernel begins anew. A commit whose answer was lost is then
        met by itself: delta-rs says that another writer delivers for this sink, and the next look at the table finds the note.
        """
        key, secret, token = self._credentials()
        endpoint, seconds = self.account.endpoint_url, f"{self.account.timeout.total_seconds():g}s"
        known = {
            "aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token,
            "aws_region": self._open().region_name or "us-east-1",
            "aws_endpoint_url": endpoint, "aws_allow_http": "true" if endpoint.startswith("http://") else "",
            "aws_conditional_put": "etag", "timeout": seconds, **RETRIES,
        }  # fmt: skip
        return {name: value for name, value in known.items() if value}

    def put(self, content: Path | bytes, name: str, sha256: str) -> None:
        """A file, or bytes, under a name in the table's folder. An attempt before may have put the same there."""
        kind, seconds = {"ContentType": "application/vnd.apache.parquet"}, self.account.timeout.total_seconds()
        put(self._s3(), self.bucket, f"{self.prefix}/{name}", content, sha256, seconds, **kind)

    def get(self, name: str) -> bytes:
        """An object of the table."""
        return bytes(self._s3().get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")["Body"].read())

    def find(self, name: str) -> bytes | None:
        """An object of the table, None when it is not there."""
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # ships no types

        try:
            return self.get(name)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404 and error.response["Error"]["Code"] != "NoSuchBucket":
                return None
            raise

    def require_conditional(self) -> None:
        """Some stores ignore the condition of a write without a word; of two writers one would then lose its rows. Asked once.

        A mark stays in the folder of the log, where nobody looks at it.
        """
        from botocore.exceptions import ClientError

        if self._checked or not self.account.endpoint_url:  # AWS has them
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

    def forget(self) -> None:
        """Look for credentials anew next time."""
        if self._client:
            self._client.close()
        self._client = self._session = None

    def _open(self) -> Any:
        if self._session is None:
            try:
                self._session = self.account.session()
            except ImportError as error:
                raise OptionError("path", "a table in S3 needs boto3: pip install 'lakeward[s3]'") from error
        return self._session

    def _credentials(self) -> tuple[str, str, str]:
        """As they are now: the chain renews those of a role before they end."""
        found = credentials(self._open())
        if not found[0]:
            self.forget()
            raise Refused(f"s3://{self.bucket}/{self.prefix}: there are no credentials; {NO_KEYS}")
        return found

    def _s3(self) -> Any:
        if self._client is None:
            self._client = self.account.client(self._open())
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
    return one_line(text, 300)
