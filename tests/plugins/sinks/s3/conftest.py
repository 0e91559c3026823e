"""Sinks `s3` that write into a fresh bucket of a store that checks who asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import botocore.session
import pytest
from s3_server import ALONE, SETTINGS, S3Server

from lakeward.secrets import Secret
from lakeward_plugins.sinks.s3 import S3Sink

LOADERS = cache(botocore.session.create_loader)  # what the library knows of the API, read from disk once and not for each sink


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine knows of AWS must not matter."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(botocore.session, "create_loader", LOADERS)


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
def sink_of(s3: S3Server, bucket: str) -> Iterator[Callable[..., S3Sink]]:
    made: list[S3Sink] = []

    def make(**options: Any) -> S3Sink:
        keys = {"access_key_id": Secret(s3.access_key_id, "env:KEY"), "secret_access_key": Secret(s3.secret_access_key, "env:SECRET")}
        made.append(S3Sink(**{"bucket": bucket, "prefix": "raw", "endpoint_url": s3.url, **keys, **options}))
        return made[-1]

    yield make
    for sink in made:
        sink.close()
