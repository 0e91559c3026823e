"""What is in the bucket, as Arrow reads it."""

from __future__ import annotations

from typing import Any

import pyarrow.fs

from lakeward_plugins.aws.account import Account, credentials


def objects(client: Any, bucket: str, prefix: str) -> list[str]:
    """Parquet objects below a prefix, as `bucket/key`; not those in folders that begin with _ or a dot, but for `_day=2026-01-31`."""
    below = f"{prefix}/" if prefix else ""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=below)
    keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
    shown = [key for key in keys if key.endswith(".parquet") and not any(map(_is_hidden, key.removeprefix(below).split("/")))]
    return [f"{bucket}/{key}" for key in sorted(shown)]


def _is_hidden(name: str) -> bool:
    return name[:1] in "._" and not (name.startswith("_") and "=" in name)


def filesystem(account: Account, client: Any) -> pyarrow.fs.S3FileSystem:
    """The store as Arrow sees it, with the credentials and the address of a client of the AWS library."""
    key, secret, token = credentials(account.session())
    scheme, _, address = client.meta.endpoint_url.partition("://")
    return pyarrow.fs.S3FileSystem(
        access_key=key or None,
        secret_key=secret or None,
        session_token=token or None,
        anonymous=not key,
        region=client.meta.region_name,
        scheme=scheme,
        endpoint_override=None if address.endswith(".amazonaws.com") else address,
        connect_timeout=account.connect_timeout.total_seconds(),
        request_timeout=account.timeout.total_seconds(),
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )
