"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from s3_server import S3Server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 API on loopback, one for each worker."""
    from s3_server import s3_server  # tests without extras have no boto3

    with s3_server() as server:
        yield server
