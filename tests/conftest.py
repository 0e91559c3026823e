"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cosmos_server import CosmosServer
    from databricks_server import DatabricksServer
    from s3_server import S3Server

with suppress(ImportError):  # the tests of packages come without hypothesis
    from hypothesis import settings

    # the first example pays for what it imports, and a busy machine for its neighbours
    settings.register_profile("lakeward", deadline=None)
    settings.load_profile("lakeward")


@pytest.fixture(scope="session", params=["moto", pytest.param("radosgw", marks=pytest.mark.radosgw)])
def s3(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """A real S3 API on loopback, one for each worker; with `-m radosgw` another one, by other people."""
    from radosgw_server import radosgw  # tests without extras have no boto3
    from s3_server import s3_server

    with s3_server() if request.param == "moto" else radosgw() as server:
        yield server


@pytest.fixture
def as_amazon(s3: S3Server) -> None:
    """For tests of what only moto does as AWS does."""
    if not s3.like_amazon:
        pytest.skip("Ceph has no roles and users of IAM by default, keeps no SHA-256, encrypts over TLS only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests against radosgw run when they are asked for: it takes packages of the system, and its time."""
    if "radosgw" not in config.getoption("markexpr"):
        left = [item for item in items if item.get_closest_marker("radosgw")]
        items[:] = [item for item in items if not item.get_closest_marker("radosgw")]
        config.hook.pytest_deselected(items=left)


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
