"""Tables in S3, on a server of its own that knows nothing of this machine's credentials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import botocore.session
import pytest
from deltalake import DeltaTable
from s3_server import ALONE, SETTINGS, S3Server

from lakeward.secrets import Secret
from lakeward_plugins.sinks.delta import DeltaSink

MakeSink = Callable[..., DeltaSink]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine knows of AWS must not matter."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    loader = botocore.session.create_loader()
    monkeypatch.setattr(botocore.session, "create_loader", lambda *_: loader)  # reads what it knows of the API once


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
def sink_of(alone: None, s3: S3Server, bucket: str) -> Iterator[MakeSink]:
    with ExitStack() as closing:

        def make(**options: Any) -> DeltaSink:
            keys = {"access_key_id": Secret(s3.access_key_id, "env:KEY"), "secret_access_key": Secret(s3.secret_access_key, "env:SECRET")}
            sink = DeltaSink(**{"path": f"s3://{bucket}/lake/t", "endpoint_url": s3.url, **keys, **options})
            closing.callback(sink.close)
            return sink

        yield make


@pytest.fixture
def table_in(s3: S3Server, bucket: str) -> Callable[[], DeltaTable | None]:
    """The table as an independent reader sees it, straight from the server."""
    options = {
        "aws_endpoint_url": s3.url, "aws_allow_http": "true", "aws_region": "us-east-1",
        "aws_access_key_id": s3.access_key_id, "aws_secret_access_key": s3.secret_access_key,
    }  # fmt: skip

    def load() -> DeltaTable | None:
        uri = f"s3://{bucket}/lake/t"
        return DeltaTable(uri, storage_options=options) if DeltaTable.is_deltatable(uri, options) else None

    return load
