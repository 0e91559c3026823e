"""What a query may not say, and what a session refuses when something gets past that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import OptionError
from lakeward_plugins.transforms.sql import Sql
from lakeward_plugins.transforms.sql.session import Session
from lakeward_plugins.transforms.sql.statement import Statement

ROWS = pa.RecordBatch.from_pydict(
    {"_row": [1, 2], "x": [1.0, 2.0], "s": ["a", "b"], "list": [[1], [2]], "deep": [{"_row": 7, "a": 1}, {"_row": 8, "a": 2}]}
)
SESSION = Session(64)
SECRET = pa.table({"token": ["s3cr3t"]})  # what a query must not reach, though it is a variable here

HOSTILE = """
COPY batch TO '{here}/out.csv'
COPY (SELECT 1) TO '{here}/out.parquet'
COPY batch FROM '{here}/in.csv'
EXPORT DATABASE '{here}/out'
IMPORT DATABASE '{here}/out'
ATTACH '{here}/other.db'
DETACH memory
INSTALL httpfs
INSTALL '{here}/evil.duckdb_extension'
LOAD httpfs
LOAD '{here}/evil.duckdb_extension'
FORCE INSTALL httpfs FROM 'http://127.0.0.1:9/'
PRAGMA enable_external_access = true
PRAGMA memory_limit = '90GB'
SET enable_external_access = true
SET lock_configuration = false
SET threads = 8
SET memory_limit = '90GB'
SET GLOBAL python_enable_replacements = true
RESET enable_external_access
RESET lock_configuration
CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')
CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')
SELECT * FROM '{here}/in.csv'
SELECT * FROM '/etc/passwd'
SELECT * FROM "{here}/in.csv"
SELECT * FROM '{here}/*.parquet'
SELECT * FROM read_csv('{here}/in.csv')
SELECT * FROM read_csv_auto('/etc/passwd')
SELECT * FROM read_text('/etc/passwd')
SELECT * FROM read_blob('/etc/passwd')
SELECT * FROM read_json('{here}/in.json')
SELECT * FROM read_parquet('{here}/in.parquet')
SELECT * FROM parquet_scan('{here}/in.parquet')
SELECT * FROM parquet_metadata('{here}/in.parquet')
SELECT * FROM sniff_csv('{here}/in.csv')
SELECT * FROM glob('/*')
SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')
SELECT * FROM 's3://bucket/x.parquet'
SELECT * FROM SECRET
SELECT * FROM ROWS
SELECT (SELECT content FROM read_text('/etc/passwd')) AS x, _row FROM batch
SELECT _row FROM batch WHERE s IN (SELECT content FROM read_text('/etc/passwd'))
WITH t AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM t
SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')
SELECT * FROM query_table('/etc/passwd')
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM read_text(''/etc/passwd'')'))
SELECT getenv('HOME')
"""
"""Each must fail twice: by what a query may say, and, were that not there, by what a session can do."""
ONLY_SAID = """
SELECT * FROM which_secret('s3://bucket/x', 's3')
PRAGMA database_list
ATTACH ':memory:' AS other
CREATE TABLE t AS SELECT 1
CREATE VIEW v AS SELECT * FROM batch
CREATE MACRO f(a) AS a + 1
DROP VIEW batch
DELETE FROM batch
INSERT INTO batch VALUES (1)
UPDATE batch SET x = 1
TRUNCATE batch
SET VARIABLE a = 1
BEGIN
CHECKPOINT
VACUUM
CALL pragma_version()
USE memory
PREPARE p AS SELECT 1
EXPLAIN SELECT 1
EXPLAIN ANALYZE SELECT 1
DESCRIBE batch
SUMMARIZE batch
SHOW TABLES
SELECT 1; SELECT 2
SELECT _row FROM batch; DROP VIEW batch
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_secrets()
SELECT * FROM duckdb_tables
SELECT * FROM sqlite_master
SELECT * FROM information_schema.tables
SELECT * FROM pg_catalog.pg_class
SELECT * FROM main.batch
SELECT * FROM memory.main.batch
SELECT current_setting('home_directory')
SELECT getvariable('a')
SELECT _row, $1 FROM batch
SELECT _row, ? FROM batch
WITH RECURSIVE t AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM t) SELECT * FROM t
WITH duckdb_tables AS (SELECT _row FROM batch) SELECT * FROM duckdb_tables
WITH batch AS (SELECT 1 AS _row) SELECT * FROM batch
WITH t AS (INSERT INTO batch VALUES (1) RETURNING _row) SELECT * FROM t
PIVOT batch ON s USING sum(x)
"""
PURE = """
now()
today()
current_date
current_timestamp
CURRENT_TIME
localtime
localtimestamp
get_current_timestamp()
transaction_timestamp()
age(TIMESTAMP '2020-01-01')
ago(INTERVAL 1 DAY)
pg_postmaster_start_time()
random()
uuid()
gen_random_uuid()
setseed(0.5)
nextval('s')
txid_current()
current_query()
current_user
session_user
current_schema()
version()
list_transform(list, lambda v: v + random())
CASE WHEN x > 1 THEN s ELSE now()::VARCHAR END
"""


def lines(text: str, here: Path = Path("/tmp")) -> list[str]:
    return text.strip().replace("{here}", str(here)).splitlines()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("query", lines(HOSTILE + ONLY_SAID))
def test_a_query_reads_the_rows_and_does_nothing_else(query: str, whole: bool) -> None:
    with pytest.raises(OptionError) as caught:
        Statement(query, SESSION, whole=whole)
    assert caught.value.option == "query"
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("query", lines(HOSTILE))
def test_a_session_refuses_it_by_itself(query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("token\ns3cr3t\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    told: object = None
    with pytest.raises(duckdb.Error):
        told = SESSION.answer(query.replace("/tmp/", f"{tmp_path}/"), ROWS, twice=False)
    assert told is None
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_settings_cannot_be_changed_back() -> None:
    session = Session(64)
    for name, value in [("enable_external_access", "true"), ("threads", "4"), ("memory_limit", "'9GB'"), ("TimeZone", "'Asia/Tokyo'")]:
        with pytest.raises(duckdb.Error, match=r"locked|lock_configuration|Cannot|cannot"):
            session.answer(f"SET {name} = {value}", ROWS, twice=False)
    told = "SELECT value FROM duckdb_settings() WHERE name IN ('threads', 'TimeZone', 'enable_external_access') ORDER BY name"
    assert session.answer(told, ROWS, twice=False)["value"].to_pylist() == ["UTC", "false", "1"]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("expression", lines(PURE))
def test_a_result_depends_on_the_rows_alone(expression: str, whole: bool) -> None:
    with pytest.raises(OptionError, match=r"depends on|no function|syntax error"):  # some are unknown to older versions
        Statement(f"SELECT _row, {expression} AS y FROM batch WHERE x > 0", SESSION, whole=whole).check_columns(ROWS.schema.names)


def test_a_column_may_be_called_like_the_time_of_now() -> None:
    rows = pa.RecordBatch.from_pydict({"_row": [1], "user": ["me"], "current_date": ["a day"]})
    assert Sql("SELECT _row, user AS who, current_date AS d FROM batch").apply(rows)["main"].to_pylist() == [
        {"_row": 1, "who": "me", "d": "a day"}
    ]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT sum(x) FROM batch",
        "SELECT _row, max(x) FROM batch GROUP BY _row",
        "SELECT _row FROM batch GROUP BY ALL",
        "SELECT _row FROM batch HAVING count(*) > 1",
        "SELECT _row, row_number() OVER () AS n FROM batch",
        "SELECT _row, sum(x) OVER (ORDER BY _row) AS n FROM batch",
        "SELECT _row, lag(x) OVER w AS n FROM batch WINDOW w AS (ORDER BY _row)",
        "SELECT _row FROM batch QUALIFY row_number() OVER () = 1",
        "SELECT _row FROM batch LIMIT 1",
        "SELECT _row FROM batch LIMIT 10%",
        "SELECT _row FROM batch OFFSET 1",
        "SELECT _row FROM batch ORDER BY x",
        "SELECT DISTINCT _row, x FROM batch",
        "SELECT DISTINCT ON (x) _row FROM batch",
        "SELECT _row, (SELECT max(x) FROM batch) AS m FROM batch",
        "SELECT _row FROM batch WHERE x = (SELECT max(x) FROM batch)",
        "SELECT _row FROM batch WHERE EXISTS (FROM batch)",
        "SELECT a._row FROM batch AS a, batch AS b",
        "SELECT a._row FROM batch AS a JOIN batch AS b USING (x)",
        "SELECT _row FROM batch UNION ALL SELECT _row FROM batch",
        "SELECT _row FROM batch EXCEPT SELECT 1",
        "SELECT _row, unnest(list) AS u FROM batch",
        "SELECT _row FROM batch, unnest(list)",
        "SELECT range AS _row FROM range(3)",
        "SELECT 1 AS x",
        "VALUES (1)",
        "WITH t AS (SELECT _row, x FROM batch LIMIT 1) SELECT * FROM t",
        "SELECT * FROM (SELECT _row FROM batch ORDER BY x) AS t",
    ],
)
def test_what_looks_at_other_rows_is_for_sql_batch(query: str) -> None:
    with pytest.raises(OptionError, match="`use: sql_batch` when that is meant"):
        Statement(query, SESSION, whole=False)
    Statement(query, SESSION, whole=True)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("query", ["SELECT _row FROM batch TABLESAMPLE 10%", "SELECT _row FROM batch USING SAMPLE 5"])
def test_a_sample_is_refused(query: str, whole: bool) -> None:
    with pytest.raises(OptionError, match="a sample is drawn at random"):
        Statement(query, SESSION, whole=whole)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT _row + 1 AS _row FROM batch",
        "SELECT x AS _row FROM batch",
        'SELECT x AS "_ROW", _row AS id FROM batch',
        "SELECT * REPLACE (x AS _row) FROM batch",
        "SELECT * RENAME (x AS _row) FROM batch",
        "SELECT deep._row FROM batch",
        "SELECT batch.deep._row FROM batch",
        "SELECT deep.* FROM batch",
        "SELECT _row FROM (SELECT deep.* FROM batch) AS deep",
        "SELECT COLUMNS(*) % 2 FROM batch",
        "SELECT COLUMNS('_row') + 1 FROM batch",
        r"SELECT COLUMNS('x') AS '_row' FROM batch",
        "SELECT * FROM (SELECT x, _row FROM batch) AS t(_row, x)",
        "WITH t(_row, x) AS (SELECT x, _row FROM batch) SELECT * FROM t",
        "SELECT * FROM (SELECT x::BIGINT AS _row FROM batch) AS t",
        "SELECT _row FROM batch AS b(_row, x)",
        "SELECT x AS a, a AS _row FROM batch",
    ],
)
def test_nothing_takes_the_place_of_the_key(query: str) -> None:
    with pytest.raises(OptionError, match=r"_row is the key|name and compute columns|write \* in the place|syntax error"):  # RENAME is new
        Statement(query, SESSION, whole=False)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "expected one SELECT, got 0 statements"),
        ("SELECT _row FROM batch; SELECT _row FROM batch", "expected one SELECT, got 2 statements"),
        ("DROP TABLE batch", "expected one SELECT, and no other statement"),
        ("SELECT _row,, x FROM batch", "syntax error at or near"),
        ("SELECT _row, uper(s) FROM batch", "no function uper(), did you mean upper()?"),
        ("SELECT _row FROM readings", "expected the table batch, where the rows are; there is nothing else"),
        ("SELECT _row, #1 FROM batch", "positional reference is not allowed here"),
    ],
)
def test_mistakes_say_what_to_write(query: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Statement(query, SESSION, whole=False)
    assert message in caught.value.message


def test_a_query_nested_without_end_is_refused() -> None:
    for query in (
        "SELECT _row, " + "abs(" * 3000 + "x" + ")" * 3000 + " FROM batch",
        "SELECT _row, " + "+".join("x" * 5000) + " FROM batch",
    ):
        with pytest.raises(OptionError):
            Statement(query, SESSION, whole=False)


ITEMS = [
    "_row", "x", "*", "b.*", "b._row", "batch._row", "deep.*", "deep._row", "deep['_row']", "struct_extract(deep, '_row')", "COLUMNS(*)",
    "COLUMNS('_row|x')", "x + 1", "_row + 0", "-_row", "deep.a", "* EXCLUDE (_row)", "* REPLACE (x AS _row)", "* REPLACE (x AS s)",
    "_row: x", "s: _row",
]  # fmt: skip
NAMES = ["", "", "AS _row", 'AS "_row"', "AS _ROW", "AS y", "AS deep", "_row", "b"]
TABLES = ["batch", "batch AS b", "batch AS deep", "batch AS b(_row, x)", "(SELECT {} FROM batch) AS b", "(SELECT {} FROM batch) AS deep"]
WITH = ["", "", "WITH w AS (SELECT {} FROM batch) ", "WITH w(_row, x) AS (SELECT {} FROM batch) "]
columns = st.lists(st.builds("{} {}".format, st.sampled_from(ITEMS), st.sampled_from(NAMES)), min_size=1, max_size=3).map(", ".join)
queries = st.builds(
    lambda outer, table, inner, start: start.format(inner) + f"SELECT {outer} FROM {'w' if start else table.format(inner)}",
    columns, st.sampled_from(TABLES), columns, st.sampled_from(WITH),
)  # fmt: skip


@given(queries)
@settings(max_examples=400, deadline=None)
def test_whatever_is_selected_a_key_stays_with_its_row(query: str) -> None:
    try:
        Statement(query, SESSION, whole=False)
        result = SESSION.answer(query, ROWS, twice=False)
    except (OptionError, duckdb.Error):
        return
    keys = [result.column(place).to_pylist() for place, name in enumerate(result.schema.names) if name == "_row"]
    assert all(each == [1, 2] for each in keys), query


def test_each_node_of_the_syntax_tree_must_be_known() -> None:
    """What a later DuckDB may bring: a node that nobody has looked at is refused, wherever it stands."""

    class Later(Session):
        def syntax(self, query: str) -> dict[str, Any]:
            tree = super().syntax(query)
            tree["statements"][0]["node"]["where_clause"] = {"class": "TELEPATHY", "type": "READ_MIND"}
            return tree

    with pytest.raises(OptionError, match="telepathy is not allowed here"):
        Statement("SELECT _row FROM batch", Later(64), whole=True)
