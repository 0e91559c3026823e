"""The stand-in that other tests trust does what the service promises, as the unmodified library sees it."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.cosmos import ContainerProxy, CosmosClient
from azure.cosmos import exceptions as cosmos_errors
from cosmos_server import CosmosServer, documents
from cosmosdb.documents import KEY

OTHER = "YW5vdGhlciBrZXkgb2YgdGhlIGFjY291bnQ="


@pytest.fixture
def container(cosmos: CosmosServer) -> ContainerProxy:
    return cosmos.container("/city")


def item(key: int, city: Any = "Oslo", **more: Any) -> dict[str, Any]:
    return {"id": str(key), "city": city, "number": key, **more}


def create(*items: dict[str, Any]) -> list[Any]:
    return [("create", (one,)) for one in items]


def status_of(error: Any) -> int:
    return int(error.value.status_code)


# -- items -------------------------------------------------------------------------------------------------------------


def test_an_item_is_created_once_replaced_and_removed(container: ContainerProxy) -> None:
    assert container.create_item(item(1))["number"] == 1
    with pytest.raises(cosmos_errors.CosmosResourceExistsError):
        container.create_item(item(1))
    container.create_item(item(1, "Rome"))  # another partition, so another item
    container.upsert_item(item(1, number=5))
    assert (container.read_item("1", "Oslo")["number"], container.read_item("1", "Rome")["number"]) == (5, 1)
    container.delete_item("1", "Oslo")
    with pytest.raises(cosmos_errors.CosmosResourceNotFoundError):
        container.read_item("1", "Oslo")


def test_an_etag_that_is_not_the_newest_is_refused(container: ContainerProxy) -> None:
    old = container.create_item(item(1))
    container.replace_item("1", item(1, number=2), etag=old["_etag"], match_condition=MatchConditions.IfNotModified)
    with pytest.raises(cosmos_errors.CosmosAccessConditionFailedError):
        container.replace_item("1", item(1, number=3), etag=old["_etag"], match_condition=MatchConditions.IfNotModified)
    assert container.read_item("1", "Oslo")["number"] == 2


@pytest.mark.parametrize(
    "wrong",
    [{"id": "a/b"}, {"id": "a#"}, {"id": "x" * 1024}, {"id": ""}, {"id": 7}, {"ttl": 0}, {"ttl": "1"},
     {"deep": json.loads("[" * 130 + "]" * 130)}, {"city": "x" * 3000}],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_an_item_that_is_none_is_400(container: ContainerProxy, wrong: dict[str, Any]) -> None:
    one = {**item(1), **wrong}
    with pytest.raises(cosmos_errors.CosmosBatchOperationError) as error:
        container.execute_item_batch(create(one), one["city"])
    assert status_of(error) == 400


def test_an_item_of_more_than_two_megabytes_is_413(container: ContainerProxy) -> None:
    container.create_item(item(1, text="x" * 2_090_000))
    with pytest.raises(cosmos_errors.CosmosHttpResponseError) as error:
        container.create_item(item(2, text="x" * 2_100_000))
    assert status_of(error) == 413


# -- batches -----------------------------------------------------------------------------------------------------------


def test_a_batch_is_written_as_a_whole(container: ContainerProxy) -> None:
    results = container.execute_item_batch(create(*map(item, range(100))), "Oslo")
    assert [result["statusCode"] for result in results] == [201] * 100
    assert len(documents(container)) == 100


def test_who_writes_need_not_read_what_is_written(cosmos: CosmosServer, container: ContainerProxy) -> None:
    client = CosmosClient(cosmos.url, KEY, enable_endpoint_discovery=False, no_response_on_write=True)
    brief = client.get_database_client(container.container_link.split("/")[1]).get_container_client(container.id)
    results = brief.execute_item_batch(create(item(1), item(2)), "Oslo")
    assert [(result["statusCode"], "resourceBody" in result) for result in results] == [(201, False)] * 2
    assert {result["eTag"] for result in results} == {
        one["_etag"] for one in container.query_items("SELECT * FROM c", partition_key="Oslo")
    }
    assert not brief.create_item(item(3))
    assert len(documents(container)) == 3


def test_a_batch_with_one_failure_leaves_nothing(container: ContainerProxy) -> None:
    container.create_item(item(7))
    with pytest.raises(cosmos_errors.CosmosBatchOperationError) as error:
        container.execute_item_batch([*create(item(1)), ("upsert", (item(7, number=0),)), *create(item(7), item(2))], "Oslo")
    assert (status_of(error), error.value.error_index) == (409, 2)
    assert [one["statusCode"] for one in error.value.operation_responses] == [424, 424, 409, 424]
    assert documents(container) == [item(7)]


def test_a_batch_has_an_etag_for_each_operation(container: ContainerProxy) -> None:
    old = container.create_item(item(1))
    replace = [("replace", ("1", item(1, number=9)), {"if_match_etag": "other"}), *create(item(2))]
    with pytest.raises(cosmos_errors.CosmosBatchOperationError) as error:
        container.execute_item_batch(replace, "Oslo")
    assert (status_of(error), error.value.error_index) == (412, 0)
    container.execute_item_batch([("replace", ("1", item(1, number=9)), {"if_match_etag": old["_etag"]})], "Oslo")
    assert container.read_item("1", "Oslo")["number"] == 9


@pytest.mark.parametrize(
    ("operations", "status"),
    [(create(*map(item, range(101))), 400), (create(*(item(n, text="x" * 700_000) for n in range(3))), 413),
     (create(item(1, "Rome")), 400)],
    ids=["operations", "bytes", "partition"],
)  # fmt: skip
def test_a_batch_beyond_the_limits_leaves_nothing(container: ContainerProxy, operations: list[Any], status: int) -> None:
    with pytest.raises((cosmos_errors.CosmosHttpResponseError, cosmos_errors.CosmosBatchOperationError)) as error:
        container.execute_item_batch(operations, "Oslo")
    assert status_of(error) == status
    assert documents(container) == []


# -- queries -----------------------------------------------------------------------------------------------------------

QUERIES = [
    ("SELECT VALUE COUNT(1) FROM c", [250]),
    ("SELECT VALUE COUNT(1) FROM c WHERE c.number < 0", [0]),
    ("SELECT TOP 2 c.number, c.city AS place FROM c ORDER BY c.number DESC",
        [{"number": 249, "place": "Oslo"}, {"number": 248, "place": "Rome"}]),
    ("SELECT VALUE c.number FROM c WHERE c.number IN (3, 5) OR c['number'] = 9", [3, 5, 9]),
    ("SELECT VALUE c.number FROM c WHERE ARRAY_CONTAINS(@wanted, c.id) AND NOT c.city = 'Rome'", [7]),
    ("SELECT DISTINCT VALUE c.city FROM c", ["Rome", "Oslo"]),
    ("SELECT c.city, COUNT(1) AS many, MAX(c.number) AS top FROM c GROUP BY c.city",
        [{"city": "Rome", "many": 125, "top": 248}, {"city": "Oslo", "many": 125, "top": 249}]),
    ("SELECT VALUE c.number FROM c WHERE c.number BETWEEN 2 AND 4 AND IS_DEFINED(c.city) AND NOT IS_DEFINED(c.lost)", [2, 3, 4]),
    ("SELECT VALUE c.number FROM c WHERE STARTSWITH(c.city, \"O\") ORDER BY c.city, c.number DESC OFFSET 1 LIMIT 2", [247, 245]),
    ("SELECT VALUE r.number FROM readings r WHERE r.number >= 248 AND r.text != 7", []),
]  # fmt: skip


@pytest.fixture
def filled(container: ContainerProxy) -> ContainerProxy:
    for start in (0, 100, 200):
        for city, odd in (("Rome", 0), ("Oslo", 1)):
            many = [item(n, city) for n in range(start, min(start + 100, 250)) if n % 2 == odd]
            container.execute_item_batch(create(*many), city)
    return container


def test_queries(filled: ContainerProxy) -> None:
    for text, wanted in QUERIES:
        given = [{"name": "@wanted", "value": ["6", "7", "none"]}]
        found = list(filled.query_items(text, parameters=given, enable_cross_partition_query=True))
        assert sorted(found, key=str) == sorted(wanted, key=str) if "ORDER" not in text else found == wanted, text


def test_results_come_in_pages(filled: ContainerProxy) -> None:
    pages = filled.query_items("SELECT * FROM c", partition_key="Oslo", max_item_count=50).by_page()
    assert [len(list(page)) for page in pages] == [50, 50, 25]
    assert len(list(filled.query_items("SELECT * FROM c", partition_key="Oslo"))) == 125  # though nobody asked for pages


@pytest.mark.parametrize(
    "text", ["SELEC", "SELECT * FROM c WHERE", "SELECT NOSUCH(c.x) FROM c", "SELECT * FROM c WHERE c.x = @none", "SELECT ; FROM c"]
)
def test_a_query_that_is_none_is_400(container: ContainerProxy, text: str) -> None:
    with pytest.raises(cosmos_errors.CosmosHttpResponseError) as error:
        list(container.query_items(text, enable_cross_partition_query=True))
    assert status_of(error) == 400


# -- the account -------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_404(cosmos: CosmosServer, container: ContainerProxy) -> None:
    for database, name in (("none", "readings"), (container.container_link.split("/")[1], "none")):
        with pytest.raises(cosmos_errors.CosmosResourceNotFoundError):
            cosmos.client.get_database_client(database).get_container_client(name).read()


def test_a_wrong_key_is_401_and_one_for_reading_cannot_write(cosmos: CosmosServer, container: ContainerProxy) -> None:
    container.create_item(item(1))
    with pytest.raises(cosmos_errors.CosmosHttpResponseError) as error:
        CosmosClient(cosmos.url, OTHER, enable_endpoint_discovery=False)
    assert status_of(error) == 401
    cosmos.set(keys={KEY: "read"})
    assert container.read_item("1", "Oslo")["number"] == 1
    assert list(container.query_items("SELECT VALUE c.number FROM c", partition_key="Oslo")) == [1]
    with pytest.raises(cosmos_errors.CosmosHttpResponseError) as error:
        container.create_item(item(2))
    assert status_of(error) == 403


def test_a_firewall_turns_everybody_away(cosmos: CosmosServer, container: ContainerProxy) -> None:
    cosmos.set(firewall=True)
    with pytest.raises(cosmos_errors.CosmosHttpResponseError, match="firewall") as error:
        container.read_item("1", "Oslo")
    assert status_of(error) == 403


def test_a_budget_of_request_units_is_kept(cosmos: CosmosServer) -> None:
    client = CosmosClient(cosmos.url, KEY, enable_endpoint_discovery=False, retry_throttle_total=-1)
    name = f"lake-{uuid.uuid4().hex[:8]}"
    cosmos.container("/city", name)
    container = client.get_database_client(name).get_container_client("readings")
    cosmos.set(budget=100)
    began, written, waits, statuses = time.monotonic(), 0, [], set()
    while time.monotonic() - began < 2.2:
        try:
            container.upsert_item(item(written))
            written += 1
        except cosmos_errors.CosmosHttpResponseError as error:
            statuses.add(error.status_code)
            waits.append(int(error.headers["x-ms-retry-after-ms"]))
            time.sleep(waits[-1] / 1000)
    assert 40 <= written <= 80  # twenty in each second that has begun, the last of which may take more than is left
    assert statuses == {429}
    assert max(waits) <= 1000
