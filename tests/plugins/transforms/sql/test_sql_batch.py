"""The transform `sql_batch`: a query over a batch as a whole."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest

from lakeward import OptionError
from lakeward_plugins.transforms.sql import Sql, SqlBatch
from lakeward_plugins.transforms.sql.session import session

ROWS = pa.RecordBatch.from_pydict(
    {"_row": [1, 2, 3, 4], "sensor_id": ["a", "b", "a", None], "x": [1.0, 2.0, 3.0, None], "list": [[1, 2], [], None, [3]]}
)


def rows(query: str, given: pa.RecordBatch = ROWS) -> Any:
    return SqlBatch(query).apply(given).to_pylist()


def test_sums_over_the_batch() -> None:
    assert rows("SELECT sensor_id, count(*) AS n, avg(x) AS mean FROM batch GROUP BY sensor_id ORDER BY sensor_id") == [
        {"sensor_id": "a", "n": 2, "mean": 2.0},
        {"sensor_id": "b", "n": 1, "mean": 2.0},
        {"sensor_id": None, "n": 1, "mean": None},
    ]


def test_rows_with_a_key_keep_their_order_unless_another_is_asked() -> None:
    ranked = "SELECT _row, rank() OVER (PARTITION BY sensor_id ORDER BY x DESC) AS place FROM batch"
    assert rows(ranked) == [{"_row": 1, "place": 2}, {"_row": 2, "place": 1}, {"_row": 3, "place": 1}, {"_row": 4, "place": 1}]
    assert [row["_row"] for row in rows("SELECT _row FROM batch ORDER BY x DESC NULLS LAST LIMIT 2")] == [3, 2]
    assert [row["_row"] for row in rows("WITH t AS (SELECT _row, x FROM batch) SELECT _row FROM t ORDER BY x DESC NULLS FIRST")] == [
        4,
        3,
        2,
        1,
    ]


def test_the_batch_may_be_read_twice() -> None:
    pairs = "SELECT a._row, b._row AS other FROM batch AS a ASOF JOIN batch AS b ON a.sensor_id = b.sensor_id AND a._row > b._row"
    assert rows(pairs) == [{"_row": 3, "other": 1}]
    assert rows("SELECT _row FROM batch WHERE x = (SELECT max(x) FROM batch)") == [{"_row": 3}]
    assert rows("SELECT unnest(list) AS value FROM batch ORDER BY value") == [{"value": 1}, {"value": 2}, {"value": 3}]


def test_of_no_rows_no_rows_and_the_same_columns() -> None:
    transform = SqlBatch("SELECT count(*) AS n, max(x) AS most FROM batch")
    empty = transform.apply(ROWS.slice(0, 0))
    assert empty.num_rows == 0
    assert empty.schema.equals(transform.apply(ROWS).schema)
    assert transform.apply(ROWS).to_pylist() == [{"n": 4, "most": 3.0}]


def test_batches_do_not_see_each_other() -> None:
    transform = SqlBatch("SELECT count(*) AS n FROM batch")
    assert [transform.apply(ROWS.slice(start, 2)).to_pylist() for start in (0, 2)] == [[{"n": 2}], [{"n": 2}]]
    assert transform.row_wise is False


def test_a_query_leaves_nothing_behind() -> None:
    left = "SELECT table_name AS name FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal"
    for query in ("SELECT count(*) AS n FROM batch", "SELECT sensor_id::INT AS i FROM batch"):
        with suppress(OptionError):
            SqlBatch(query).apply(ROWS)
        Sql("SELECT _row FROM batch").apply(ROWS)
        assert session(256.0).answer(left, ROWS, twice=False)["name"].to_pylist() == ["batch"]  # this question's own


@pytest.mark.parametrize(
    ("query", "option", "message"),
    [
        ("SELECT * FROM batch UNION ALL SELECT * FROM batch", "query", "_row is the key of a row: give each once"),
        ("SELECT _row, unnest(list) AS u FROM batch", "query", "_row is the key of a row: give each once"),
        ("SELECT x * 10 AS _row FROM batch", "query", "_row is the key of a row"),
        ("SELECT _row::INT AS _row FROM batch", "query", "_row is the key of a row"),
        ("SELECT count(*) AS _row FROM batch WHERE x > 10", "query", "_row is the key of a row"),
        ("SELECT sensor_id::INT AS i FROM batch", "query", "fails on a value of the batch (ConversionException); write TRY_CAST"),
        ("SELECT max(y) FROM batch", "query", 'Referenced column "y" not found'),
    ],
)
def test_a_batch_that_the_query_fails_on_is_refused(query: str, option: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        rows(query)
    assert caught.value.option == option
    assert message in caught.value.message


def test_a_query_that_outgrows_its_memory_fails_and_fills_no_disk(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    many = pa.RecordBatch.from_pydict({"_row": list(range(500_000)), "x": [number / 7 for number in range(500_000)]})
    with pytest.raises(OptionError, match=r"max_mb: the query needs more than 16 MB; give it more, or set batch.rows lower"):
        SqlBatch("SELECT x, count(*) AS n FROM batch GROUP BY x", max_mb=16.0).apply(many)
    assert list(tmp_path.iterdir()) == []
