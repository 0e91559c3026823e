"""Items that newer rows replace: windows, alerts, newest readings; whoever writes, and whatever comes again."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from azure.cosmos import ContainerProxy
from cosmos_server import CosmosServer, documents

from lakeward_plugins.sinks.cosmos import writing

Make = Callable[..., Any]


@pytest.fixture
def container(cosmos: CosmosServer) -> ContainerProxy:
    return cosmos.container("/city")


def windows(*revisions: tuple[str, int], city: str = "Oslo") -> pa.RecordBatch:
    names, numbers = zip(*revisions, strict=True)
    return pa.record_batch(
        {"window_id": list(names), "revision": list(numbers), "city": [city] * len(names), "mean": [float(n) for n in numbers]}
    )


def revisions(container: ContainerProxy) -> dict[str, int]:
    found = documents(container)
    assert all(item["mean"] == item["revision"] for item in found)
    return {item["window_id"]: item["revision"] for item in found}


def test_the_newest_revision_stays_in_whatever_order_they_come(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    luck = random.Random(4)
    every = [(f"w{n}", revision) for n in range(30) for revision in range(1, 6)]
    luck.shuffle(every)
    sink = sink_of(container, upsert_by=["window_id"], revision="revision")
    for sequence, start in enumerate(range(0, len(every), 40), 1):
        sink.deliver(parcel_of(windows(*every[start : start + 40]), sequence=sequence))
    assert revisions(container) == {f"w{n}": 5 for n in range(30)}


def test_the_newest_revision_stays_though_several_write(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    parcels = []
    for number in range(24):
        luck = random.Random(number)
        rows = windows(*((f"w{n}", luck.randint(1, 50)) for n in range(10)))
        parcels.append((rows, parcel_of(rows, sequence=number + 1)))
    sinks = [sink_of(container, upsert_by=["window_id"], revision="revision") for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda one: [one[0].deliver(parcel) for _, parcel in parcels[one[1] :: 3]], zip(sinks, range(3), strict=True)))
    wanted = {f"w{n}": max(rows["revision"][n].as_py() for rows, _ in parcels) for n in range(10)}
    assert revisions(container) == wanted


def test_a_greater_revision_that_comes_between_look_and_write_stays(
    container: ContainerProxy, sink_of: Make, parcel_of: Make, monkeypatch: Any
) -> None:
    sink, real, between = sink_of(container, upsert_by=["window_id"], revision="revision"), writing.Writer._ask, [7, 5]
    sink.deliver(parcel_of(windows(("w1", 1), ("w2", 1))))

    def ask(*arguments: Any) -> Any:
        found = real(*arguments)
        if between:
            number = between.pop()
            container.upsert_item({"id": "w1", "city": "Oslo", "window_id": "w1", "revision": number, "mean": number})
        return found

    monkeypatch.setattr(writing.Writer, "_ask", ask)
    sink.deliver(parcel_of(windows(("w1", 6), ("w2", 2)), sequence=2))
    assert revisions(container) == {"w1": 7, "w2": 2}  # 5 came between, so it was looked at again, and 7 came between, which stays
    assert not between


def test_a_parcel_again_changes_nothing(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    first, second = parcel_of(windows(("w1", 1), ("w2", 1))), parcel_of(windows(("w1", 2)), sequence=2)
    for parcel in (first, second, first, second):
        sink_of(container, upsert_by=["window_id"], revision="revision").deliver(parcel)
    assert revisions(container) == {"w1": 2, "w2": 1}


def test_an_item_that_went_away_in_between_is_made_again(
    container: ContainerProxy, sink_of: Make, parcel_of: Make, monkeypatch: Any
) -> None:
    sink = sink_of(container, upsert_by=["window_id"], revision="revision")
    sink.deliver(parcel_of(windows(("w1", 1))))
    real = writing.Writer._ask

    def ask(*arguments: Any) -> Any:
        found = real(*arguments)
        if found:
            container.delete_item("w1", "Oslo")
        return found

    monkeypatch.setattr(writing.Writer, "_ask", ask)
    sink.deliver(parcel_of(windows(("w1", 2)), sequence=2))
    assert revisions(container) == {"w1": 2}


def test_of_equal_revisions_the_first_stays_within_a_parcel_and_between_parcels(
    container: ContainerProxy, sink_of: Make, parcel_of: Make
) -> None:
    rows = [("first", 2), ("second", 2), ("older", 1)]
    for cut in (1, 2, 3):
        sink = sink_of(container, upsert_by=["window_id"], revision="revision")
        for sequence, start in enumerate(range(0, 3, cut), 10 * cut):
            names, numbers = zip(*rows[start : start + cut], strict=True)
            columns = {"window_id": [f"cut {cut}"] * len(names), "city": ["Oslo"] * len(names), "who": names, "revision": numbers}
            sink.deliver(parcel_of(pa.record_batch(columns), sequence=sequence))
    assert {item["window_id"]: item["who"] for item in documents(container)} == dict.fromkeys(["cut 1", "cut 2", "cut 3"], "first")


@pytest.mark.parametrize("other", [{"life": "fedc9876"}, {"epoch": 1}, {"sequence": 9}], ids=["backfill", "epoch", "replay"])
def test_an_older_row_that_comes_again_replaces_nothing(
    container: ContainerProxy, sink_of: Make, parcel_of: Make, other: dict[str, Any]
) -> None:
    """A backfill has a life of its own, and a letter that is replayed has a later number: only the rows know which is older."""
    at = [datetime(2026, 1, 31, hour, tzinfo=UTC) for hour in (1, 2)]
    old, new = (pa.record_batch({"_row": [n], "city": ["Oslo"], "sensor": ["a1"], "at": [at[n]], "n": [n]}) for n in (0, 1))
    sink = sink_of(container, upsert_by=["sensor"], revision="at")
    for rows, token in ((old, {}), (new, {"sequence": 2}), (old, other)):
        sink.deliver(parcel_of(rows, **token))
    assert [(item["n"], item["at"]) for item in documents(container)] == [(1, "2026-01-31T02:00:00.000000Z")]


@pytest.mark.parametrize(("revision", "options"), [("id", {}), ("id", {"own_id": "number"}), ("_row", {"row_key": True})])
def test_a_key_that_grows_is_a_revision(container: ContainerProxy, sink_of: Make, parcel_of: Make, revision: str, options: Any) -> None:
    """The own column `id` of the rows has another name in the items."""
    sink = sink_of(container, upsert_by=["city"], revision=revision, **options)
    for sequence, key in enumerate([4, 10, 8, 9], 1):
        columns = {"_row": [key, key + 1], "id": [key, key + 1], "city": ["Oslo", "Rome"], "temperature": [key / 2, key / 4]}
        sink.deliver(parcel_of(pa.record_batch(columns), sequence=sequence))
    assert sorted((item["city"], item["temperature"]) for item in documents(container)) == [("Oslo", 5.0), ("Rome", 2.5)]


def test_where_items_are_replaced_again_and_again_each_time_is_a_look_and_a_batch(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make
) -> None:
    sink = sink_of(container, upsert_by=["window_id"], revision="revision")
    sent = []
    for revision in (1, 2, 3, 4):
        before = cosmos.set()["requests"]
        sink.deliver(parcel_of(windows(("w1", revision), ("w2", revision)), sequence=revision))
        sent.append(cosmos.set()["requests"] - before)
    assert sent == [1, 3, 2, 2]  # the second batch fails first
    assert revisions(container) == {"w1": 4, "w2": 4}


def test_revisions_are_in_order_whatever_their_form() -> None:
    forms: list[Any] = [
        None, "odd", [1], -(2**60), "-3", 0, 7, 2**53, str(2**53 + 1), str(2**63), "2026-01-31", "2026-01-31T01:02:03",
        "2026-01-31T01:02:03.000001Z", "2026-01-31T01:02:03.1Z", "2026-01-31T01:02:04Z",
    ]  # fmt: skip
    ranks = [writing.rank(form) for form in forms]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(forms) - 2  # those that are none are all the same
    for same in ("2026-01-31T01:02:03Z", "2026-01-31T01:02:03.000", "2026-01-31T01:02:03.000000Z"):
        assert writing.rank(same) == writing.rank("2026-01-31T01:02:03")
