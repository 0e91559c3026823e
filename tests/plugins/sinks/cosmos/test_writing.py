"""Once: batches, lost answers, limits, items that are refused."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from azure.cosmos import ContainerProxy
from azure.cosmos.exceptions import CosmosHttpResponseError
from cosmos_server import CosmosServer, documents
from faultproxy import FaultProxy

from lakeward import Refused, Retry
from lakeward_plugins.sinks.cosmos import CosmosSink, writing

Make = Callable[..., Any]


def readings(count: int, cities: Sequence[str] = ("Oslo",), **more: Any) -> pa.RecordBatch:
    """Rows of these cities in turn."""
    keys = range(count)
    columns = {"_row": keys, "city": [cities[n % len(cities)] for n in keys], "id": keys, "temperature": [n / 8 for n in keys]}
    return pa.record_batch({name: pa.array(values) for name, values in (columns | more).items()})


@pytest.fixture
def container(cosmos: CosmosServer) -> ContainerProxy:
    return cosmos.container("/city")


def ids(container: ContainerProxy) -> list[str]:
    return sorted(item["id"] for item in documents(container))


def requests(cosmos: CosmosServer, work: Callable[[], Any]) -> int:
    before = cosmos.set()["requests"]
    work()
    return cosmos.set()["requests"] - before


SCHEMA = readings(1).schema

# -- batches -----------------------------------------------------------------------------------------------------------


def test_a_partition_is_written_in_batches_of_a_hundred(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make
) -> None:
    sink, parcel = sink_of(container), parcel_of(readings(250, cities=["Oslo"]))
    opened(sink)
    assert requests(cosmos, lambda: sink.deliver(parcel)) == 3
    assert len(documents(container)) == 250


def test_each_partition_has_batches_of_its_own(cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    sink, parcel = sink_of(container), parcel_of(readings(300, cities=["Oslo", "Rome", "Paris"]))
    opened(sink)
    assert requests(cosmos, lambda: sink.deliver(parcel)) == 3
    found = list(container.query_items("SELECT c.city, COUNT(1) AS n FROM c GROUP BY c.city", enable_cross_partition_query=True))
    assert sorted(one["n"] for one in found) == [100, 100, 100]


def test_a_batch_has_no_more_bytes_than_the_limit(cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    sink, parcel = sink_of(container), parcel_of(readings(5, text=["x" * 900_000] * 5))
    opened(sink)
    assert requests(cosmos, lambda: sink.deliver(parcel)) == 3
    assert [len(item["text"]) for item in documents(container)] == [900_000] * 5


def test_bytes_are_counted_as_they_are_sent(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    """The library writes each letter beyond ASCII as six bytes or more."""
    receipt = sink_of(container).deliver(parcel_of(readings(3, text=["°" * 250_000] * 3)))
    assert (dict(receipt.details), receipt.rejected) == ({"written": 3, "already_there": 0}, {})


def test_as_many_partitions_at_a_time_as_the_options_say(
    container: ContainerProxy, sink_of: Make, parcel_of: Make, monkeypatch: Any
) -> None:
    busy, most, lock, real = [0], [0], threading.Lock(), writing.Writer._send

    def send(*arguments: Any) -> Any:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        try:
            threading.Event().wait(0.02)
            return real(*arguments)
        finally:
            with lock:
                busy[0] -= 1

    monkeypatch.setattr(writing.Writer, "_send", send)
    sink_of(container, concurrency=3).deliver(parcel_of(readings(40, cities=list("abcdefgh"))))
    assert most == [3]


# -- once --------------------------------------------------------------------------------------------------------------


def opened(sink: CosmosSink) -> None:
    """The library looks at the account in the background when it begins; what is counted comes after that."""
    sink.probe(SCHEMA)
    for thread in threading.enumerate():
        if thread.name == "cosmos-endpoint-refresh":
            thread.join()


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "hang_after", "truncated", "500", "503"])
def test_an_answer_that_is_lost_is_one_attempt_and_the_next_one_finishes(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make, fault: str
) -> None:
    parcel = parcel_of(readings(350, cities=["Oslo"]))
    with FaultProxy(cosmos.url, hang=1.5) as proxy:
        sink = sink_of(container, endpoint=proxy.url, timeout=timedelta(seconds=1))
        opened(sink)
        before = proxy.counts.total()
        proxy.script("ok", fault)
        with pytest.raises(Retry):
            sink.deliver(parcel)
        assert proxy.counts.total() - before == 2  # the library tried nothing again
        sent = requests(cosmos, lambda: sink.deliver(parcel))
        assert sent <= 5  # the first batch is not sent again; the lost one fails and is looked for, the next is looked for, both others go
    assert len(documents(container)) == 350


def test_an_answer_that_ends_in_its_head_is_an_attempt_and_no_traceback(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("urllib3.connection").setLevel(logging.NOTSET)
    parcel = parcel_of(readings(1))
    with FaultProxy(cosmos.url) as proxy:
        sink = sink_of(container, endpoint=proxy.url)
        opened(sink)
        for faults in (["truncated"], ["ok", "truncated"]):  # the batch; the look after it was found to be there
            proxy.script(*faults)
            with pytest.raises(Retry):
                sink.deliver(parcel)
        assert sink.deliver(parcel).details == {"written": 0, "already_there": 1}
    assert "Traceback" not in caplog.text
    assert len(documents(container)) == 1


def test_after_a_restart_what_is_there_is_looked_for_and_not_written(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make
) -> None:
    parcel = parcel_of(readings(350, cities=["Oslo"]))
    sink_of(container).deliver(parcel)
    before = {item["id"]: item["_etag"] for item in container.query_items("SELECT * FROM c", partition_key="Oslo")}
    sink = sink_of(container)
    opened(sink)
    assert requests(cosmos, lambda: sink.deliver(parcel)) == 1 + 4  # one failed batch, then a look for each
    assert {item["id"]: item["_etag"] for item in container.query_items("SELECT * FROM c", partition_key="Oslo")} == before
    assert sink.deliver(parcel).details == {"written": 0, "already_there": 350}


def test_a_part_that_is_there_is_made_whole(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    parcel = parcel_of(readings(60, cities=["Oslo"]))
    sink_of(container).deliver(parcel)
    wanted = ids(container)
    for name in wanted[::3]:
        container.delete_item(name, "Oslo")
    assert sink_of(container).deliver(parcel).details == {"written": 20, "already_there": 40}
    assert ids(container) == wanted


def test_a_replica_that_lags_behind_is_not_believed(container: ContainerProxy, sink_of: Make, parcel_of: Make, monkeypatch: Any) -> None:
    """A conflict proves that an item is there, whatever a look says."""
    parcel = parcel_of(readings(20, cities=["Oslo"]))
    sink_of(container).deliver(parcel)
    monkeypatch.setattr(writing.Writer, "_ask", lambda *_: {})
    assert sink_of(container).deliver(parcel).details == {"written": 0, "already_there": 20}


def test_an_item_that_somebody_changed_is_left_alone(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    parcel = parcel_of()
    sink_of(container).deliver(parcel)
    mine = next(item for item in documents(container) if item["city"] == "Rome")
    container.upsert_item({**mine, "note": "looked at", "temperature": 99})
    assert sink_of(container).deliver(parcel).details == {"written": 0, "already_there": 4}
    assert [(item["note"], item["temperature"]) for item in documents(container) if item["city"] == "Rome"] == [("looked at", 99)]


@pytest.mark.parametrize("status", [408, 429, 449, 503])
def test_an_operation_that_fails_for_a_while_takes_its_batch_along(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make, monkeypatch: Any, status: int
) -> None:
    monkeypatch.setattr(writing, "PATIENCE", 0)
    sink, parcel = sink_of(container), parcel_of(readings(250))
    opened(sink)
    for _ in range(2):
        cosmos.set(script=[[status, 0, "not now", {"operation": True}]])
        with pytest.raises(Retry, match=f"answered {status}"):
            sink.deliver(parcel)
        assert documents(container) == []
    receipt = sink.deliver(parcel)
    assert (dict(receipt.details), receipt.rejected) == ({"written": 250, "already_there": 0}, {})
    assert len(documents(container)) == 250


# -- throttling --------------------------------------------------------------------------------------------------------


def test_a_throttled_request_waits_as_long_as_the_service_asks(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make
) -> None:
    sink, parcel = sink_of(container), parcel_of(readings(250))
    opened(sink)
    cosmos.set(script=[[429, 3200, "The request rate is large", {"retry_after_ms": 250}]] * 2)
    began = time.monotonic()
    assert requests(cosmos, lambda: sink.deliver(parcel)) == 2 + 3
    assert time.monotonic() - began >= 0.5
    assert len(documents(container)) == 250


def test_a_wait_that_is_too_long_is_the_kernels(cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    sink, parcel = sink_of(container), parcel_of(readings(1))
    opened(sink)
    cosmos.set(script=[[429, 3200, "The request rate is large", {"retry_after_ms": 60_000}]])
    with pytest.raises(Retry, match="answered 429/3200") as caught:
        sink.deliver(parcel)
    assert (caught.value.after, caught.value.throttled) == (60, True)


def test_one_that_stays_throttled_is_left_to_the_kernel(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make, monkeypatch: Any
) -> None:
    monkeypatch.setattr(writing, "PATIENCE", 0.2)
    cosmos.set(script=[[429, 3200, "The request rate is large"]] * 20)
    with pytest.raises(
        Retry, match=r"answered 429/3200: The request rate is large; if that lasts, give the container more throughput"
    ) as caught:
        sink_of(container).deliver(parcel_of())
    assert caught.value.throttled
    assert cosmos.set()["script"] >= 15


# -- items that are refused --------------------------------------------------------------------------------------------


def test_items_that_will_never_be_taken_are_told_and_the_others_are_there(
    container: ContainerProxy, sink_of: Make, parcel_of: Make
) -> None:
    rows = readings(
        120,
        cities=["Oslo"],
        text=["x" * 2_100_000 if n == 7 else "short" for n in range(120)],
        ttl=[0 if n == 110 else 60 for n in range(120)],
    )
    receipt = sink_of(container).deliver(parcel_of(rows))
    assert dict(receipt.rejected) == {
        7: "Cosmos DB answered 413: Request size is too large",
        110: "Cosmos DB answered 400: The input ttl is invalid. Ensure to provide a nonzero positive integer or -1.",
    }
    assert receipt.details == {"written": 118, "already_there": 0}
    assert sorted(item["row_id"] for item in documents(container)) == [n for n in range(120) if n not in (7, 110)]


def test_a_request_that_is_refused_as_a_whole_is_halved(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make
) -> None:
    cosmos.set(script=[[400, 0, "cannot be read"], [413, 0, "too large"]])
    receipt = sink_of(container).deliver(parcel_of(readings(80, cities=["Oslo"])))
    assert (dict(receipt.details), receipt.rejected) == ({"written": 80, "already_there": 0}, {})
    assert len(documents(container)) == 80


def test_a_request_that_something_on_the_way_refuses_says_nothing_of_the_rows(
    container: ContainerProxy, sink_of: Make, parcel_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise CosmosHttpResponseError(400, "<html>400 Bad Request</html>")

    monkeypatch.setattr(ContainerProxy, "execute_item_batch", refuse)
    with pytest.raises(Refused, match="answered 400: <html>400 Bad Request</html>; check the options of this sink"):
        sink_of(container).deliver(parcel_of(readings(3, cities=["Oslo"])))


def test_many_refused_items_are_a_mistake_elsewhere(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    with pytest.raises(
        Refused, match=r"1\d\d of 1\d\d items were refused, the last ones because Cosmos DB answered 400: The input ttl is invalid"
    ):
        sink_of(container).deliver(parcel_of(readings(150, cities=["Oslo"], ttl=[0] * 150)))


# -- a container with unique keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"upsert_by": ["id"], "revision": "revision"}])
def test_a_row_that_a_unique_key_keeps_out_is_a_dead_letter_and_never_taken_for_delivered(
    cosmos: CosmosServer, sink_of: Make, parcel_of: Make, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """409 says that an item of this id is there, or one of another id with the same unique key: then the row is nowhere."""
    monkeypatch.setattr(writing, "LAG", 0)
    container = cosmos.container("/city", unique_key_policy={"uniqueKeys": [{"paths": ["/place"]}]})
    rows, sink = readings(4, place=["a", "b", "a", "c"], revision=[1] * 4), sink_of(container, own_id="id_", **options)
    receipt = sink.deliver(parcel_of(rows))
    assert list(receipt.rejected) == [2]
    assert "unique keys" in receipt.rejected[2]
    assert dict(receipt.details) == {"written": 3, "already_there": 0}
    assert sorted(item["place"] for item in documents(container)) == ["a", "b", "c"]
    again = sink_of(container, own_id="id_", **options).deliver(parcel_of(rows))
    assert (dict(again.details), list(again.rejected)) == ({"written": 0, "already_there": 3}, [2])


def test_a_newer_revision_that_a_unique_key_keeps_out_is_a_dead_letter(cosmos: CosmosServer, sink_of: Make, parcel_of: Make) -> None:
    container = cosmos.container("/city", unique_key_policy={"uniqueKeys": [{"paths": ["/place"]}]})
    sink = sink_of(container, own_id="id_", upsert_by=["id"], revision="revision")
    sink.deliver(parcel_of(readings(2, place=["a", "b"], revision=[1, 1])))
    receipt = sink.deliver(parcel_of(readings(2, place=["c", "c"], revision=[2, 2]), sequence=2))
    assert (dict(receipt.details), list(receipt.rejected)) == ({"written": 1, "already_there": 0}, [1])
    assert sorted(item["place"] for item in documents(container)) == ["b", "c"]
