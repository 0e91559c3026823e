"""An object that is written only when nothing is there, and is known again by what it was made from."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import botocore.exceptions as aws  # type: ignore[import-untyped]  # ships no types
from attrs import define, frozen

from lakeward import Refused, Retry
from lakeward_plugins.aws.upload import opened, put, require_stored
from lakeward_plugins.sinks.s3.answers import status

log = logging.getLogger("lakeward.s3")
LARGE = 64 << 20  # bytes; what is larger goes in parts
PART = 16 << 20  # bytes of a part; S3 takes no smaller one than 5 MiB, and 10,000 of them
SHA256 = re.compile(r"[0-9a-f]{64}")
ASKED = "it is asked for each object before that is written"


@frozen
class Content:
    """What an object is to be."""

    key: str
    body: Path | bytes
    sha256: str
    """Of the body."""
    origin: str = ""
    """The sha256 of the parcel that it was made from, when it is not the parcel itself: it is known again by that."""
    kind: str = "application/vnd.apache.parquet"

    @property
    def size(self) -> int:
        """In bytes."""
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)

    @property
    def metadata(self) -> dict[str, str]:
        """What is kept beside the object."""
        return {"sha256": self.sha256} | ({"parcel": self.origin} if self.origin else {})


@define
class Bucket:
    """Writes into one bucket. Tried again by the kernel only; errors are those of the library, but Retry and Refused for what is there."""

    client: Any
    name: str
    timeout: float
    encryption: Mapping[str, str]
    """`ServerSideEncryption` and `SSEKMSKeyId`, for each object."""
    conditional: bool | None = True
    """Whether the store knows conditional writes. None: the first object is written twice, and a store that takes it again ignores them."""

    def write_once(self, content: Content) -> bool:
        """Write the object; False when it was there already."""
        large = content.size > LARGE
        if (large or self.conditional is False) and self._seen(content):  # a request that saves an upload, or is all there is
            return False
        try:
            if large:
                return self._write_parts(content)
            self._write(content)
        except aws.ClientError as error:
            if status(error) == 412:
                self.conditional = True
                return not self.has(content, found=True)
            if status(error) == 501 and self.conditional is not False:
                self._without_conditions("has no conditional writes")
                return self.write_once(content)
            raise
        if self.conditional is None:
            self._try_condition(content)
        return True

    def _try_condition(self, content: Content) -> None:
        try:
            self._write(content)
        except aws.ClientError as error:
            if status(error) != 412:
                raise
            self.conditional = True
        else:
            self._without_conditions("ignores If-None-Match")

    def keeps(self, key: str) -> bool:
        """Whether an object that is there stays when it is written on condition that there is none."""
        try:
            self.client.put_object(Bucket=self.name, Key=key, Body=b"", IfNoneMatch="*", **self.encryption)
        except aws.ClientError as error:
            if status(error) not in (412, 501):
                raise
            return status(error) == 412
        return False

    def _without_conditions(self, why: str) -> None:
        self.conditional = False
        log.warning("s3://%s: the store %s; %s", self.name, why, ASKED)

    @property
    def _condition(self) -> dict[str, str]:
        return {} if self.conditional is False else {"IfNoneMatch": "*"}

    def _write(self, content: Content) -> None:
        more = {"ContentType": content.kind, "Metadata": content.metadata, **self.encryption, **self._condition}
        put(self.client, self.name, content.key, content.body, content.sha256, self.timeout, **more)

    def _write_parts(self, content: Content) -> bool:
        """As `write_once`. Nothing is visible before the last request; without it, the parts are given up: a store bills them for ever.

        An upload takes its time, and stores such as Ceph know the condition, but not at the end of one. So the store is asked once more.
        """
        at = {"Bucket": self.name, "Key": content.key}
        self._give_up_older(content.key)
        begun = self.client.create_multipart_upload(**at, ContentType=content.kind, Metadata=content.metadata, **self.encryption)
        upload = begun.get("UploadId") or ""
        try:
            parts = list[dict[str, Any]]()
            with opened(content.body, self.timeout) as body:
                while piece := body.read(PART):
                    number, checksum = len(parts) + 1, base64.b64encode(hashlib.md5(piece, usedforsecurity=False).digest()).decode()
                    answer = self.client.upload_part(**at, UploadId=upload, PartNumber=number, Body=piece, ContentMD5=checksum)
                    require_stored(answer, self.name, content.key)
                    parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            if self._seen(content):
                self._give_up(content.key, upload)
                return False
            done = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
            require_stored(self.client.complete_multipart_upload(**at, **done, **self._condition), self.name, content.key)
        except BaseException:
            self._give_up(content.key, upload)
            raise
        return True

    def _give_up_older(self, key: str) -> None:
        """Uploads of this key that a killed process left: the name is ours, so they are."""
        with suppress(aws.ClientError):  # it may not be allowed to list them
            for upload in self.client.list_multipart_uploads(Bucket=self.name, Prefix=key).get("Uploads", []):
                if upload["Key"] == key:
                    self._give_up(key, upload["UploadId"])

    def _give_up(self, key: str, upload: str) -> None:
        with suppress(aws.ClientError, aws.BotoCoreError, ValueError, TimeoutError):  # the error before it tells more
            self.client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)

    def _seen(self, content: Content) -> bool:
        """As `has`. Without s3:ListBucket, S3 answers 403 for what is not there: the write itself will tell then."""
        try:
            return self.has(content)
        except aws.ClientError as error:
            if status(error) != 403 or self.conditional is False:
                raise
            return False

    def has(self, content: Content, found: bool = False) -> bool:
        """Whether the object is there with this content; `Refused` when with another."""
        where = f"s3://{self.name}/{content.key}"
        try:
            head = self.client.head_object(Bucket=self.name, Key=content.key)
        except aws.ClientError as error:
            if status(error) != 404:
                raise
            if found:
                raise Retry(f"{where}: was there a moment ago and is gone") from error
            return False
        mark, wanted = ("parcel", content.origin) if content.origin else ("sha256", content.sha256)
        stored, size = head["Metadata"].get(mark, ""), content.size
        if stored != wanted and SHA256.fullmatch(stored):
            raise Refused(f"{where} is there already with other content; give this sink a prefix of its own, or move that object away")
        if stored != wanted or (not content.origin and head.get("ContentLength") != size):  # an answer cut short is one for the library
            raise Retry(f"{where} is there already, but not with this sha256 and {size} bytes; if that stays so, move it away")
        return True
