"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cosmos_server import CosmosServer
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


@pytest.fixture(scope="session")
def cosmos_account() -> Iterator[CosmosServer]:
    """A Cosmos DB account on loopback, one for each worker."""
    from cosmos_server import cosmos_server  # tests without extras have no azure-cosmos

    with cosmos_server() as server:
        yield server


@pytest.fixture
def databricks(warehouses: DatabricksServer) -> DatabricksServer:
    """The same with everything allowed and nothing broken."""
    warehouses.mend()
    return warehouses


@pytest.fixture
def cosmos(cosmos_account: CosmosServer) -> Iterator[CosmosServer]:
    """The same, with its settings as at the start before and after a test."""
    cosmos_account.reset()
    yield cosmos_account
    cosmos_account.reset()
