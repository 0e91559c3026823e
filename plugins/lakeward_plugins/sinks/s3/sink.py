"""Parquet files in an S3 bucket: each parcel is one object under the name of its token, written only when nothing is there.

The spooled file is shipped as it is, with its sha256 beside it. When an answer is lost, the next attempt finds the object
("412 Precondition Failed"), sees the same sha256, and is done: the rows are there once. Any store with the S3 API will do.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal

import botocore.exceptions as aws  # type: ignore[import-untyped]  # ships no types
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from attrs import define, field

from lakeward import ROW, Encoding, OptionError, Parcel, Receipt, Refused, Rejected, Retry, option
from lakeward.partitions import require_columns, split
from lakeward.secrets import Secret
from lakeward.trail import Placed
from lakeward_plugins.aws.account import Account
from lakeward_plugins.sinks.s3.answers import ODD, UNSENT, code, status, unhappy, unreached
from lakeward_plugins.sinks.s3.naming import filled, require_bucket, require_folder
from lakeward_plugins.sinks.s3.reading import filesystem, objects
from lakeward_plugins.sinks.s3.writing import ASKED, Bucket, Content

log = logging.getLogger("lakeward.s3")
LONGEST = 1_024  # bytes of a key


@define
class S3Sink(Placed):
    """One Parquet object for each parcel, `s3://<bucket>/<prefix>/<token>.parquet`. A prefix belongs to one sink.

    Its credentials need `s3:PutObject` and `s3:GetObject` under the prefix, and nothing else; `--dry-run` says more when they have
    `s3:ListBucket` as well. A store that refuses conditional writes is asked for the object before each write. With `partition_by` there
    is one object for each partition, `<prefix>/city=London/<token>.parquet`, and after all of them `<prefix>/_manifests/<token>.json`.
    """

    kind: ClassVar = "s3"
    placed_by: ClassVar = ("endpoint_url", "bucket", "prefix", "partition_by")
    bucket: str = option(help="Name of the bucket, which must be there; `{prefix}`, `{type}` and `{region}` are filled in.")
    prefix: str = option("", help="Folder in the bucket, such as `raw/north`, with the same fields.")
    bucket_prefix: str = option("", help="What `{prefix}` stands for, such as the name of your company.")
    pipeline_type: str = option("", help="What `{type}` stands for, such as raw, schematized, aggregated or emergency.")
    region: str = option("", help="Region of the bucket; left out, what the AWS environment says.")
    endpoint_url: str = option("", help="Address of a store that is not AWS, such as https://minio.local:9000.")
    profile: str = option("", help="Profile in the AWS files to take credentials from; left out, what the AWS environment says.")
    access_key_id: Secret | None = option(None, help="With `secret_access_key`; left out, the AWS chain is asked, anew after each refusal.")
    secret_access_key: Secret | None = option(None, help="Of that access key.")
    session_token: Secret | None = option(None, help="Of temporary credentials.")
    encryption: Literal["bucket", "AES256", "aws:kms"] = option(
        "bucket", help="How the store encrypts objects; `bucket`: as it is set there."
    )
    kms_key_id: str = option("", help="With `encryption: aws:kms`: the key; left out, that of the account.")
    partition_by: list[str] = option(factory=list, help="Columns whose values split each parcel into folders, as in `city=London/`.")
    compression: Literal["snappy", "zstd", "gzip", "none"] = option("snappy", help="How pages of the files are compressed.")
    row_key: bool = option(False, help="Keep the row key, the column `_row`.")
    inserted_at: str = option("", help="Add a column of this name, such as databricks_inserted_at, with the time of spooling.")
    connect_timeout: timedelta = option(timedelta(seconds=5), help="Longest wait for a connection, or to send a piece.", minimum=0.1)
    timeout: timedelta = option(timedelta(seconds=60), help="Longest wait for an answer; an upload gets 1 s more per 64 kB.", minimum=0.1)
    _account: Account = field(init=False, repr=False, eq=False)
    _bucket: Bucket | None = field(init=False, default=None, repr=False, eq=False)
    _conditional: bool | None = field(init=False, default=True, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        fields = {
            "prefix": (self.bucket_prefix, "bucket_prefix"),
            "type": (self.pipeline_type, "pipeline_type"),
            "region": (self.region, "region"),
        }
        self.bucket, self.prefix = filled("bucket", self.bucket, fields), filled("prefix", self.prefix, fields).strip("/")
        require_bucket(self.bucket)
        require_folder(self.prefix)
        keys = (self.access_key_id, self.secret_access_key, self.session_token)
        if self.kms_key_id and self.encryption != "aws:kms":
            raise OptionError("kms_key_id", "goes with `encryption: aws:kms`")
        self._account = Account(self.region, self.endpoint_url, self.profile, keys, self.connect_timeout, self.timeout)

    @property
    def encoding(self) -> Encoding:
        """Files as the options say."""
        return Encoding(self.compression, self.row_key, self.inserted_at)

    @property
    def _folder(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def probe(self, schema: pa.Schema) -> str:
        """Where objects would go. Lists one object, because only an answer with a body says which of the credentials is wrong."""
        doubt, key = "", schema.get_field_index(ROW)
        require_columns(schema if self.row_key or key < 0 else schema.remove(key), self.partition_by)
        with self._sorted_errors(self._folder):
            try:
                self._open().client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
            except aws.ClientError as error:
                if code(error) != "AccessDenied":
                    raise
                doubt = "; whether it may write there only the first parcel will show, as these credentials may not list the bucket"
        return f"would write Parquet objects ({self.compression}, {len(schema)} columns) to {self._folder}{doubt}"

    def endpoints(self) -> list[str]:
        """The store."""
        with self._sorted_errors(self._folder):
            return [str(self._open().client.meta.endpoint_url)]

    def try_out(self) -> str:
        """Write an empty object and remove it."""
        key = self._key(f".lakeward-doctor-{secrets.token_hex(4)}")
        with self._sorted_errors(f"s3://{self.bucket}/{key}"):
            bucket = self._open()
            bucket.client.put_object(Bucket=self.bucket, Key=key, Body=b"", **bucket.encryption)
            doubt = "" if bucket.keeps(key) else f"; the store has no conditional writes, or ignores them: {ASKED}"
            try:
                bucket.client.delete_object(Bucket=self.bucket, Key=key)
            except aws.ClientError as error:
                if status(error) != 403:
                    raise
                return f"wrote s3://{self.bucket}/{key}, which stays: these credentials may not remove, and need not{doubt}"
        return f"wrote and removed an object in {self._folder}{doubt}"

    def stored(self) -> tuple[pyarrow.fs.FileSystem, list[str]]:
        """The objects that are there now. Needs `s3:ListBucket` and `s3:GetObject`."""
        with self._sorted_errors(self._folder):
            client = self._open().client
            return filesystem(self._account, client), objects(client, self.bucket, self.prefix)

    def facts(self) -> dict[str, str | int]:
        """Where the objects are, and how many."""
        return {"place": self._folder, "files": len(self.stored()[1])}

    def keep_in(self, folder: Path) -> None:
        """Remember there where objects went last, and what the store can do."""
        super().keep_in(folder)
        self._conditional = self._trail.known("conditional", self.place)
        if self._conditional is False:
            log.warning("s3://%s: the store has no conditional writes, or ignores them; %s", self.bucket, ASKED)

    def write(self, parcel: Parcel) -> Receipt:
        """All objects of the parcel, but for those that are there."""
        key, size, there = "", 0, True
        for content in self._contents(parcel):
            key = content.key
            try:
                with self._sorted_errors(f"s3://{self.bucket}/{key}"):
                    bucket = self._open()
                    there = not bucket.write_once(content) and there
                    self._trail.learn(conditional=bucket.conditional)
            except Rejected as error:
                if not size:
                    raise
                todo = "other partitions of the parcel are there, so it cannot be sent in smaller parts; let the store take it"
                raise Refused(f"{error}; {todo}") from None
            except (Refused, Retry) as problem:
                if not size and (isinstance(problem, Refused) or isinstance(problem.__context__, UNSENT)):
                    self._trail.refused()
                raise
            size += content.size
        return Receipt(f"s3://{self.bucket}/{key}", {"bytes": size, "already_there": there})

    def holds(self, parcel: Parcel) -> bool:
        """Whether the first object of the parcel is there; what is there of another parcel does not count."""
        try:
            first = next(self._contents(parcel))
        except (Refused, Rejected):  # such rows were never written
            return False
        with self._sorted_errors(f"s3://{self.bucket}/{first.key}"), suppress(Refused):
            return self._open().has(first)
        return False

    def close(self) -> None:
        """Close connections that are kept open between requests."""
        self._forget()
        super().close()

    def _forget(self) -> None:
        """The next attempt makes a client anew."""
        if self._bucket:
            self._conditional = self._bucket.conditional  # of the store, not of the connection
            self._bucket.client.close()
        self._bucket = None

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}".removeprefix("/")

    def _contents(self, parcel: Parcel) -> Iterator[Content]:
        return self._partitions(parcel) if self.partition_by else self._whole(parcel)

    def _whole(self, parcel: Parcel) -> Iterator[Content]:
        yield Content(self._key(f"{parcel.token.name}.parquet"), parcel.path, parcel.sha256)

    def _partitions(self, parcel: Parcel) -> Iterator[Content]:
        """An object for each, in one order, then the list of them: the parcel is all there when that is.

        A retry goes through all again; what an earlier attempt wrote is known by the parcel it was made from.
        """
        objects = []
        room = LONGEST - len(self._key(f"/{parcel.token.name}.parquet").encode())
        for part in split(parcel.table(), self.partition_by, LONGEST, room):
            out, texts = io.BytesIO(), [one.name for one in part.rows.schema if pa.types.is_string(one.type)]
            table = pa.Table.from_batches([part.rows])
            pq.write_table(table, out, compression=self.compression, use_dictionary=texts or False)  # type: ignore[arg-type]  # a list of names is allowed as well
            key = self._key(f"{part.folder}/{parcel.token.name}.parquet")
            objects.append({"key": key, "rows": part.rows.num_rows})
            yield Content(key, out.getvalue(), hashlib.sha256(out.getvalue()).hexdigest(), parcel.sha256)
        listed = json.dumps({"parcel": str(parcel.token), "sha256": parcel.sha256, "rows": parcel.rows, "objects": objects}).encode()
        key = self._key(f"_manifests/{parcel.token.name}.json")
        yield Content(key, listed, hashlib.sha256(listed).hexdigest(), parcel.sha256, "application/json")

    def _open(self) -> Bucket:
        if self._bucket is None:
            encryption: dict[str, str] = {"ServerSideEncryption": self.encryption} if self.encryption != "bucket" else {}
            encryption |= {"SSEKMSKeyId": self.kms_key_id} if self.kms_key_id else {}
            seconds = self.timeout.total_seconds()
            self._bucket = Bucket(self._account.client(self._account.session()), self.bucket, seconds, encryption, self._conditional)
        return self._bucket

    @contextmanager
    def _sorted_errors(self, where: str) -> Iterator[None]:
        try:
            yield
        except (aws.ClientError, aws.BotoCoreError, *ODD) as error:
            problem = unhappy(error, where) if isinstance(error, aws.ClientError) else unreached(error, where)
            if isinstance(problem, Refused):
                self._forget()  # the next attempt looks for credentials anew
            raise problem from None  # its cause holds the whole answer
