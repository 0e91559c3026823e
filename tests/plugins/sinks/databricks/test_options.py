"""Options, names and the statement that makes a table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakeward import OptionError, Refused
from lakeward.secrets import Secret
from lakeward.testing.hostile import EXTREMES, TYPES
from lakeward.yamlfile.build import Mistakes, build
from lakeward_plugins.sinks.databricks import DatabricksSink

PATH = "/sql/1.0/warehouses/0123456789abcdef"
SECRET = Secret("canary-of-options", "env:X")
GIVEN: dict[str, Any] = {
    "host": "adb-1.azuredatabricks.net",
    "http_path": PATH,
    "token": SECRET,
    "table": "lake.iot.t",
    "volume": "lake.iot.v",
}
MERGE: dict[str, Any] = {"mode": "merge", "upsert_by": ["a"], "revision": "b"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"host": "http://adb-1.azuredatabricks.net"}, "host: is not the name of a workspace"),  # the token would go in the clear
    ({"host": "https://me:canary@adb-1.net"}, "host: is not the name of a workspace"),
    ({"host": "adb-1.net/path?canary=1"}, "host: is not the name of a workspace"),
    ({"host": ""}, "host: is not the name of a workspace"),
    ({"http_path": "sql 1"}, "http_path: 'sql 1' is not a path such as /sql/1.0/warehouses/"),
    ({"http_path": "/sql?x=1"}, "http_path: '/sql"),
    ({"table": "a.b.c.d"}, "table: 'a.b.c.d' is not a table"),
    ({"table": "a..c"}, "table: 'a..c' is not a table"),
    ({"table": "a; DROP TABLE b"}, "table: 'a; DROP TABLE b' is not a table"),
    ({"table": "`a"}, "table: '`a' is not a table"),
    ({"volume": "lake.iot"}, "volume: 'lake.iot' is not a volume"),
    ({"volume": "/Volumes/lake/iot"}, "volume: '/Volumes/lake/iot' is not a volume"),
    ({"volume": "/Volumes/lake/iot/v/../w"}, "volume: .* is not a volume"),
    ({"volume": "/Volumes/lake/iot/v'/w"}, "volume: .* is not a volume"),
    ({"volume": ""}, "volume: mode copy needs a volume"),
    ({"mode": "insert"}, "volume: mode insert uses no volume"),
    ({"mode": "merge", "revision": "b"}, "upsert_by: mode merge needs the columns"),
    ({"mode": "merge", "upsert_by": ["a"]}, "revision: mode merge needs the column"),
    ({"upsert_by": ["a"]}, "upsert_by: is for `mode: merge` only"),
    ({"revision": "b"}, "revision: is for `mode: merge` only"),
    ({"timeout": timedelta(0)}, r"timeout: expected at least 0\.1 s"),
    ({"token": "literal"}, r"token: give the access token as \$\{env:NAME\}"),
]


@pytest.mark.parametrize(("options", "told"), WRONG)
def test_mistakes_in_options_are_told_without_a_secret(options, told):
    with pytest.raises(OptionError, match=told) as caught:
        DatabricksSink(**GIVEN | options)
    assert "canary" not in str(caught.value)


RIGHT: list[dict[str, Any]] = [
    {"host": "https://adb-1.azuredatabricks.net/"},
    {"host": "adb-1.azuredatabricks.net:8443"},
    {"http_path": "sql/protocolv1/o/6789/12abc-567"},
    {"http_path": f"{PATH}?o=12"},
    {"table": "readings_0_raw"},
    {"table": "sensor_data.readings_0_raw"},
    {"table": "`lake`.`iot-2`.`größe`"},
    {"volume": "/Volumes/lake/iot/v/north/east/"},
    {"volume": "", "mode": "insert"},
    {"volume": "", **MERGE},
    MERGE,
]


@pytest.mark.parametrize("options", RIGHT)
def test_odd_but_right_options_are_taken(options):
    with closing(DatabricksSink(**GIVEN | options)) as sink:
        assert "canary" not in repr(sink)


def test_options_come_from_yaml():
    given = GIVEN | {
        "compression": "zstd",
        "row_key": True,
        "inserted_at": "at",
        "timeout": "2m",
        "create": True,
        "schema_change": "evolve",
    }
    sink = build(DatabricksSink, given, Path())
    assert (sink.timeout, sink.create, sink.schema_change) == (timedelta(minutes=2), True, "evolve")
    assert (sink.encoding.compression, sink.encoding.row_key, sink.encoding.inserted_at) == ("zstd", True, "at")
    with pytest.raises(Mistakes, match="required, but missing"):
        build(DatabricksSink, {}, Path())


# -- CREATE TABLE ------------------------------------------------------------------------------------------------------

TYPED: dict[str, str] = {
    "int8": "TINYINT", "int16": "SMALLINT", "int32": "INT", "int64": "BIGINT", "uint8": "SMALLINT", "uint16": "INT", "uint32": "BIGINT",
    "uint64": "DECIMAL(20,0)", "float32": "FLOAT", "float64": "DOUBLE", "bool": "BOOLEAN", "string": "STRING", "large_string": "STRING",
    "binary": "BINARY", "date32": "DATE", "time64": "STRING", "timestamp": "TIMESTAMP_NTZ", "timestamp_utc": "TIMESTAMP",
    "decimal": "DECIMAL(10,2)", "list": "ARRAY<BIGINT>", "struct": "STRUCT<`x`: DOUBLE, `label`: STRING>", "dictionary": "STRING",
    "null": "STRING",
}  # fmt: skip


def sink_of(**options: Any) -> DatabricksSink:
    return DatabricksSink(**GIVEN | options)


def test_every_type_has_its_nearest():
    schema = pa.schema([(f"a_{word}", array.type) for word, array in TYPES.items()])
    lines = sink_of().ddl(schema).splitlines()
    assert lines[0] == "CREATE TABLE IF NOT EXISTS `lake`.`iot`.`t` ("
    assert [line.strip().rstrip(",") for line in lines[1:-1]] == [
        *(f"`a_{word}` {TYPED[word]}" for word in TYPES), "`lakeward_token` STRING",
    ]  # fmt: skip
    assert lines[-1] == ") USING DELTA"


MORE: list[tuple[pa.DataType, str]] = [
    (pa.map_(pa.string(), pa.int32()), "MAP<STRING, INT>"),
    (pa.list_(pa.struct([("a b", pa.list_(pa.float16()))])), "ARRAY<STRUCT<`a b`: ARRAY<FLOAT>>>"),
    (pa.list_(pa.uint8(), 3), "ARRAY<SMALLINT>"),
    (pa.duration("ns"), "BIGINT"),
    (pa.decimal256(50, 3), "DECIMAL(38,3)"),
    (pa.decimal128(5, -2), "DECIMAL(7,0)"),
    (pa.binary(4), "BINARY"),
    (pa.uuid(), "BINARY"),
    (pa.date64(), "DATE"),
]


@pytest.mark.parametrize(("kind", "told"), MORE, ids=lambda value: str(value)[:20])
def test_more_types_have_theirs(kind, told):
    assert f"`a` {told},\n" in sink_of().ddl(pa.schema([("a", kind)]))


@pytest.mark.parametrize("kind", [pa.month_day_nano_interval(), pa.list_(pa.duration("s"))])
def test_types_without_one_are_refused_by_the_name_of_their_column(kind):
    with pytest.raises(Refused, match="column 'a': "):
        sink_of().ddl(pa.schema([("a", kind)]))


def test_the_table_has_what_the_options_add():
    schema = pa.schema([("_row", pa.int64()), ("a`b", pa.string())])
    assert "`_row`" not in sink_of().ddl(schema)
    with_all = sink_of(row_key=True, inserted_at="databricks_inserted_at", mode="insert", volume="").ddl(schema)
    assert [line.strip(" ,") for line in with_all.splitlines()[1:-1]] == [
        "`_row` BIGINT", "`a``b` STRING", "`databricks_inserted_at` TIMESTAMP", "`lakeward_token` STRING",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["copy", "insert"])
def test_the_stand_in_makes_the_table_and_describes_it_so(databricks, schema, mode):
    """What DESCRIBE says of a table is what rows are compared with."""
    types = {word: array.type for word, array in (TYPES | EXTREMES).items()} | {"map": pa.map_(pa.string(), pa.float64())}
    rows = pa.schema([(f"a_{word}", kind) for word, kind in types.items()])
    made: Callable[..., DatabricksSink] = DatabricksSink
    options = {"mode": mode, "volume": f"{schema}.staged" if mode == "copy" else ""}
    with closing(made(databricks.url, databricks.http_path, f"{schema}.t", Secret(databricks.token, "env:T"), **options)) as sink:
        databricks.run(sink.ddl(rows))
        assert sink.probe(rows).endswith(f"the table {schema}.t ({len(rows)} columns)")
