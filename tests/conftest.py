"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from databricks_server import DatabricksServer
    from s3_server import S3Server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 API on loopback, one for each worker."""
    from s3_server import s3_server  # tests without extras have no boto3

    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def warehouses() -> Iterator[DatabricksServer]:
    """A stand-in for a Databricks SQL warehouse, one for each worker."""
    from databricks_server import databricks_server  # tests without extras have no client for it

    with databricks_server() as server:
        yield server


@pytest.fixture
def databricks(warehouses: DatabricksServer) -> DatabricksServer:
    """The same with everything allowed and nothing broken."""
    warehouses.mend()
    return warehouses
