"""A real S3 API on loopback: moto's server as a process of its own, which checks signatures, keys and permissions."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from attrs import frozen
from botocore.config import Config
from listening import address

ALONE = {  # the environment in which no credentials of the machine are found, and nothing off this machine is asked
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "NO_PROXY": "127.0.0.1",
}  # fmt: skip
SETTINGS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
)


@frozen
class S3Server:
    """Where it listens, and the keys of a user who may do everything in S3."""

    like_amazon: ClassVar[bool] = True
    """Whether it has roles and users, encryption, and checksums of its own, and knows the condition at the end of an upload in parts."""
    url: str
    access_key_id: str
    secret_access_key: str
    temporary: tuple[str, str, str] = ("", "", "")
    """Access key id, secret access key and session token of a role that may do the same."""

    def client(self, service: str = "s3") -> Any:
        """An independent reader: it goes to the server itself, whatever stands between it and lakeward."""
        return client(self.url, self.access_key_id, self.secret_access_key, service)

    def bucket(self) -> str:
        """A new, empty one."""
        name = f"lake-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Everything under the prefix."""
        s3 = self.client()
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def table(self, bucket: str, prefix: str = "") -> pa.Table:
        """All rows of all objects; an empty table when there are none."""
        tables = [pq.read_table(io.BytesIO(content)) for content in self.objects(bucket, prefix).values()]
        return pa.concat_tables(tables) if tables else pa.table({})

    def user(self, *actions: str, resource: str = "*") -> tuple[str, str]:
        """Access key id and secret access key of a new user who may do just this."""
        iam, name = self.client("iam"), f"u{uuid.uuid4().hex[:8]}"
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=_policy(*actions, resource=resource))
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]


@cache  # making one takes a tenth of a second
def client(url: str, access_key_id: str, secret_access_key: str, service: str) -> Any:
    return boto3.client(
        service, endpoint_url=url, aws_access_key_id=access_key_id, aws_secret_access_key=secret_access_key, region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, connect_timeout=10, read_timeout=60),
    )  # fmt: skip


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server for the time being; it ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stdout=output, stderr=output, env=os.environ | ALONE
            )
        try:
            yield _with_authentication(address(process, log, "Running on"))
        finally:
            process.kill()
            process.wait()


def _with_authentication(url: str) -> S3Server:
    """Until it is told so, the server believes everybody: time to make the first user."""
    key, secret = S3Server(url, "anybody", "anything").user("s3:*", "iam:*")
    temporary = _temporary(S3Server(url, "anybody", "anything"))
    request = urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}, method="POST")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()
    return S3Server(url, key, secret, temporary)


def _temporary(server: S3Server) -> tuple[str, str, str]:
    """Access key id, secret access key and session token of a role."""
    iam, sts = server.client("iam"), server.client("sts")
    iam.create_role(RoleName="role", AssumeRolePolicyDocument="{}")
    iam.put_role_policy(RoleName="role", PolicyName="p", PolicyDocument=_policy("s3:*"))
    made = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/role", RoleSessionName="session")["Credentials"]
    return made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]


def _policy(*actions: str, resource: str = "*") -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": resource}]})
