"""What the SQLite source promises beyond the contract: exact values, clear words, and a sensor that never notices."""

import math
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import Batch, OptionError, Refused, Retry
from lakeward.testing import SourceContract
from lakeward_plugins.sources.sqlite import SqliteSource

DATA = Path(os.environ.get("LAKEWARD_TEST_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
READINGS = "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, temperature REAL, level INTEGER, photo BLOB)"


def database(path: Path, *script: str, rows: list[tuple] | None = None, into: str = "readings") -> Path:
    """Written with another SQLite library than the source reads with, and closed before it does."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for sql in script:
            connection.execute(sql)
        if rows:
            connection.executemany(f"INSERT INTO {into} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    return path


def read(path: Path, limit: int = 1000, after: dict | None = None, **options) -> list[Batch]:
    with closing(SqliteSource(path, **options)) as source:
        return list(source.read(after, limit))


def good(batches: list[Batch]) -> list[dict]:
    return [row for batch in batches for row in batch.rows.to_pylist()]


def bad(batches: list[Batch]) -> list[dict]:
    return [row for batch in batches if batch.rejected is not None for row in batch.rejected.to_pylist()]


class TestSqliteSource(SourceContract):
    def make(self, tmp_path: Path) -> SqliteSource:
        path = tmp_path / "sensor.db"
        if not path.exists():
            rows = [(number * 3, f"2024-01-01T00:00:{number:02}Z", number / 7, number, None) for number in range(1, 31)]
            database(path, READINGS, rows=rows)
        return SqliteSource(path)

    def while_suspended(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "sensor.db", timeout=0)) as connection, connection:
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("INSERT INTO readings (temperature) VALUES (1.0)")


# -- types -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("INTEGER", pa.int64()), ("INT", pa.int64()), ("BIGINT", pa.int64()), ("UNSIGNED BIG INT", pa.int64()), ("BOOLEAN", pa.int64()),
        ("TEXT", pa.string()), ("VARCHAR(20)", pa.string()), ("CLOB", pa.string()), ("DATETIME", pa.string()), ("timestamp", pa.string()),
        ("DATE", pa.string()), ("", pa.string()), ("JSON", pa.string()), ("STRING", pa.string()),
        ("REAL", pa.float64()), ("DOUBLE PRECISION", pa.float64()), ("FLOAT", pa.float64()), ("NUMERIC", pa.float64()),
        ("DECIMAL(10,5)", pa.float64()), ("BLOB", pa.binary()),
    ],
)  # fmt: skip
def test_column_types_follow_the_declaration_also_when_there_are_no_rows(tmp_path: Path, declared: str, expected: pa.DataType) -> None:
    path = database(tmp_path / "a.db", f"CREATE TABLE readings (id INTEGER PRIMARY KEY, value {declared})")
    assert SqliteSource(path, table="readings").schema() == pa.schema([("_row", pa.int64()), ("id", pa.int64()), ("value", expected)])


EVERY_KIND = "CREATE TABLE readings (id INTEGER PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB, n NUMERIC, d DATETIME, u, o BOOLEAN)"
ANY_VALUE = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 10**18, 0, 1]),
    st.floats(allow_nan=False),
    st.sampled_from([1 / 7, math.inf, -math.inf, 5e-324, 1e22, 9007199254740993.0, 1e18]),
    st.text(max_size=5),
    st.sampled_from(["", "🌡️", "a\0b", "1.5", "n/a", "\ufeff"]),
    st.binary(max_size=4),
)


def expected_value(kind: str, stored_as: str, value: object) -> tuple[bool, object]:
    """By the words of the manual: does the stored value fit, and what comes out."""
    if stored_as == "null":
        return True, None
    if kind in "io":
        return stored_as == "integer", value
    if kind == "r":
        return stored_as == "real", value
    if kind == "n":
        return stored_as == "real" or (stored_as == "integer" and int(float(value)) == value), value
    if kind == "b":
        return stored_as == "blob", value
    if stored_as == "text":
        try:
            return True, value.decode()
        except UnicodeDecodeError:
            return False, None
    return stored_as != "blob" and kind in "du", value


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(*[ANY_VALUE] * 8), min_size=1, max_size=8), limit=st.integers(1, 9), raw=st.booleans())
def test_each_row_comes_out_once_and_exact_or_is_rejected(
    tmp_path_factory: pytest.TempPathFactory, rows: list, limit: int, raw: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(EVERY_KIND)
        marks = ", ".join(["CAST(? AS TEXT)" if raw and column == 2 else "?" for column in range(8)])  # which lets any bytes be a text
        connection.executemany(f"INSERT INTO readings VALUES (NULL, {marks})", rows)
        connection.text_factory = bytes
        stored = connection.execute("SELECT id, " + ", ".join(f"typeof({c}), {c}" for c in "irtbnduo") + " FROM readings").fetchall()
    batches = read(path, limit, table="readings")
    got, rejected = {row["_row"]: row for row in good(batches)}, {row["_row"] for row in bad(batches)}
    assert sorted([*got, *rejected]) == list(range(1, len(rows) + 1))
    for key, *cells in stored:
        wanted = {
            kind: expected_value(kind, of.decode(), value) for kind, of, value in zip("irtbnduo", cells[::2], cells[1::2], strict=True)
        }
        assert (key in got) == all(fits for fits, _ in wanted.values()), wanted
        for kind, (_, value) in wanted.items() if key in got else ():
            assert_same(got[key][kind], value)


def assert_same(got: object, wanted: object) -> None:
    if isinstance(got, str) and isinstance(wanted, float):
        assert float(got) == wanted
    elif isinstance(got, str) and isinstance(wanted, int):
        assert got == str(wanted)
    else:
        assert got == wanted


def test_values_at_the_edges_are_bit_exact(tmp_path: Path) -> None:
    rows = [
        (-(2**63), 2**53 + 1, 1 / 7, "🌡️ 21°", "1"), (-1, -(2**63), math.inf, "", "2"), (5, 2**63 - 1, -math.inf, "nul\0byte", "3"),
        (2**63 - 1, 0, 5e-324, None, None),
    ]  # fmt: skip
    path = database(
        tmp_path / "a.db", "CREATE TABLE readings (id INTEGER PRIMARY KEY, i INTEGER, r REAL, t TEXT, timestamp TEXT)", rows=rows
    )
    for limit in (1, 2, 3, 100):
        assert [tuple(row.values())[1:] for row in good(read(path, limit))] == rows


def test_thousands_of_nulls_first_do_not_change_the_types(tmp_path: Path) -> None:
    rows = [(number, None, None, None, None) for number in range(5000)] + [(5000, "2024", 1.5, 7, b"\0")]
    batches = read(database(tmp_path / "a.db", READINGS, rows=rows), 100_000)
    assert [batch.rejected for batch in batches] == [None]
    assert good(batches)[-1] == {"_row": 5000, "id": 5000, "timestamp": "2024", "temperature": 1.5, "level": 7, "photo": b"\0"}


def test_numbers_in_a_time_column_become_text_without_loss(tmp_path: Path) -> None:
    times = [1704067200, 1704067200.123456, 2460310.1428571427, "2024-01-01T00:00:00Z", None, -1]
    path = database(tmp_path / "a.db", "CREATE TABLE readings (id INTEGER PRIMARY KEY, time DATETIME)", rows=list(enumerate(times)))
    texts = [row["time"] for row in good(read(path))]
    assert [texts[0], float(texts[1]), float(texts[2]), *texts[3:]] == ["1704067200", times[1], times[2], times[3], None, "-1"]


def test_options_override_declared_types(tmp_path: Path) -> None:
    script = "CREATE TABLE readings (id INTEGER PRIMARY KEY, time TEXT, a REAL, b TEXT, c INTEGER, d NUMERIC)"
    path = database(tmp_path / "a.db", script, rows=[(1, "t", 3.0, "x", 2**53 + 1, 4), (2, "t", 1e300, "y", 7, 4)])
    batches = read(path, types={"a": "int", "c": "text", "d": "int"})
    assert good(batches) == [{"_row": 1, "id": 1, "time": "t", "a": 3, "b": "x", "c": "9007199254740993", "d": 4}]
    assert bad(batches)[0]["_detail"] == "column 'a' (declared REAL, read as int) holds real 1.0e+300"


def test_utf_16_databases_read_the_same(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db", "PRAGMA encoding = 'UTF-16le'", READINGS, rows=[(1, "Zürich 🌡️", 1.5, 1, None), (2, "é", "n/a", 1, b"\xfe")]
    )
    batches = read(path)
    assert good(batches)[0]["timestamp"] == "Zürich 🌡️"
    assert (bad(batches)[0]["timestamp"], bad(batches)[0]["photo"]) == ("é", "x'fe'")


def test_generated_columns_and_strange_names_are_read(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        'CREATE TABLE "my ""table""" ("the id" INTEGER PRIMARY KEY, time TEXT, "select" REAL, "a""b" TEXT, "true" INTEGER, '
        'double REAL GENERATED ALWAYS AS ("select" * 2) VIRTUAL, plain GENERATED ALWAYS AS ("true") STORED)',
        'INSERT INTO "my ""table""" VALUES (7, \'t\', 1.5, \'x\', 0)',
    )
    wanted = {"_row": 7, "the id": 7, "time": "t", "select": 1.5, 'a"b': "x", "true": 0, "double": 3.0, "plain": "0"}
    assert good(read(path)) == [wanted]


def test_columns_come_in_the_order_asked_for_with_or_without_the_key(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", READINGS, rows=[(1, "t", 1.5, 2, b"")])
    assert good(read(path, columns=["level", "timestamp"])) == [{"_row": 1, "level": 2, "timestamp": "t"}]
    assert list(good(read(path, columns=["level", "id"]))[0]) == ["_row", "level", "id"]


# -- rejected rows -----------------------------------------------------------------------------------------------------


def test_a_bad_cell_costs_its_own_row_only_and_says_what_was_there(tmp_path: Path) -> None:
    rows = [(number, "t", number / 7, number, None) for number in range(2000)]
    rows[500] = (500, "t", "n/a", 1, None)
    rows[501] = (501, "t", b"\x00\xff", 1.5, "x" * 100)
    batches = read(database(tmp_path / "a.db", READINGS, rows=rows))
    assert [row["temperature"] for row in good(batches)] == [number / 7 for number in range(2000) if number not in (500, 501)]
    first, second = bad(batches)
    assert first == {
        "_row": 500, "id": "500", "timestamp": "t", "temperature": "n/a", "level": "1", "photo": None,
        "_reason": "type", "_detail": "column 'temperature' (declared REAL, read as float) holds text 'n/a'",
    }  # fmt: skip
    assert (second["temperature"], second["level"], second["photo"]) == ("x'00ff'", "1.5", "x" * 100)
    assert second["_detail"].split("; ")[:2] == [
        "column 'temperature' (declared REAL, read as float) holds blob x'00ff'",
        "column 'level' (declared INTEGER, read as int) holds real 1.5",
    ]
    assert len(second["_detail"]) < 300


def test_text_that_is_not_utf8_is_rejected_and_kept_byte_by_byte(tmp_path: Path) -> None:
    rows = [(number, f"t{number}", 1.0, 1, None) for number in range(1000)]
    path = database(tmp_path / "a.db", READINGS, rows=rows)
    database(
        path,
        "UPDATE readings SET timestamp = CAST(x'ff41' AS TEXT) WHERE id IN (0, 7, 8, 999)",
        "UPDATE readings SET level = 'x' WHERE id = 8",
    )
    batches = read(path)
    assert [row["_row"] for row in good(batches)] == [number for number in range(1000) if number not in (0, 7, 8, 999)]
    assert {(row["_row"], row["_reason"], row["timestamp"]) for row in bad(batches)} == {
        (0, "utf8", "x'ff41'"), (7, "utf8", "x'ff41'"), (999, "utf8", "x'ff41'"), (8, "type", "x'ff41'"),
    }  # fmt: skip
    assert bad(batches)[-1]["_detail"] == "column 'timestamp' holds text that is not UTF-8, x'ff41'"


def test_a_batch_of_rejected_rows_only_still_moves_the_position(tmp_path: Path) -> None:
    rows = [(number, "t", "n/a", 1, None) for number in range(1, 5)] + [(9, "t", 1.0, 1, None)]
    batches = read(database(tmp_path / "a.db", READINGS, rows=rows), 2)
    assert [(batch.rows.num_rows, batch.position["id"]) for batch in batches] == [(0, 2), (0, 4), (1, 9)]
    assert batches[0].rows.schema == batches[2].rows.schema


def test_an_integer_that_no_float_can_hold_is_not_rounded(tmp_path: Path) -> None:
    script = "CREATE TABLE readings (id INTEGER PRIMARY KEY, time TEXT, price DECIMAL(20,2))"
    path = database(
        tmp_path / "a.db", script, rows=[(1, "t", 2**53), (2, "t", 2**53 + 1), (3, "t", 1e18), (4, "t", 2**63 - 1), (5, "t", 1.25)]
    )
    batches = read(path)
    assert [row["price"] for row in good(batches)] == [2.0**53, 1e18, 1.25]
    assert [row["price"] for row in bad(batches)] == [str(2**53 + 1), str(2**63 - 1)]


def test_text_in_a_blob_column_is_not_passed_off_as_bytes(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", READINGS, rows=[(1, "t", 1.0, 1, b"a"), (2, "t", 1.0, 1, "a"), (3, "t", 1.0, 1, 5)])
    batches = read(path)
    assert [row["photo"] for row in good(batches)] == [b"a"]
    assert [(row["_row"], row["photo"]) for row in bad(batches)] == [(2, "a"), (3, "5")]


# -- finding the table -------------------------------------------------------------------------------------------------


def test_the_only_table_with_a_row_id_and_a_time_is_found(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db", READINGS,
        "CREATE TABLE pipeline_config (id INTEGER PRIMARY KEY, pipeline_type TEXT, created_at TIMESTAMP, updated_at TIMESTAMP)",
        "CREATE TABLE labels (start TEXT, timestamp TEXT)", "CREATE TABLE places (id INTEGER PRIMARY KEY, original_timezone TEXT)",
        "CREATE VIEW latest AS SELECT * FROM readings",
    )  # fmt: skip
    source = SqliteSource(path)
    assert (source.table_name, source.timestamp_column) == ("readings", "timestamp")


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ("ts INTEGER", "ts"), ("event_time TEXT", "event_time"), ("recorded_at TEXT", "recorded_at"), ("ReadingDate TEXT", "ReadingDate"),
        ("whenever DATETIME", "whenever"), ("created_at TEXT, date TEXT, timestamp TEXT", "timestamp"), ("time_zone TEXT", None),
        ("updated_at DATETIME", None), ("uptime INTEGER", None),
    ],
)  # fmt: skip
def test_the_time_column_is_found_by_name_or_type(tmp_path: Path, columns: str, found: str | None) -> None:
    path = database(tmp_path / "a.db", f"CREATE TABLE readings (id INTEGER PRIMARY KEY, {columns})")
    assert SqliteSource(path, table="readings").timestamp_column == found


KEYLESS = "no table has both an INTEGER PRIMARY KEY and a time column: "


@pytest.mark.parametrize(
    ("script", "options", "option", "words"),
    [
        ([], {}, "path", "has no tables"),
        (["CREATE TABLE a (time TEXT)"], {}, "table", KEYLESS + "'a' has no INTEGER PRIMARY KEY"),
        (["CREATE TABLE a (id INTEGER PRIMARY KEY)"], {}, "table", KEYLESS + "'a' has no time column"),
        ([READINGS, "CREATE TABLE a (id INTEGER PRIMARY KEY, time)"], {}, "table", "more than one table could be meant: a, readings"),
        ([READINGS], {"table": "reading"}, "table", "no table 'reading'; did you mean 'readings'?"),
        ([READINGS], {"table": "xyz"}, "table", "no table 'xyz'; tables are readings"),
        ([READINGS], {"columns": ["level", "temprature"]}, "columns[1]", "no column 'temprature'; did you mean 'temperature'?"),
        ([READINGS], {"columns": ["level", "level"]}, "columns", "'level' is there twice"),
        ([READINGS], {"timestamp": "tiemstamp", "table": "readings"}, "timestamp", "did you mean 'timestamp'?"),
        ([READINGS], {"types": {"levle": "int"}}, "types.levle", "did you mean 'level'?"),
        ([READINGS], {"types": {"id": "text"}}, "types.id", "INTEGER PRIMARY KEY and stays an integer"),
        (["CREATE TABLE a (id INT PRIMARY KEY, time)"], {"table": "a"}, "table", "primary key of 'a' is (id INT), which is not the row id"),
        (["CREATE TABLE a (id INTEGER PRIMARY KEY DESC, time)"], {"table": "a"}, "table", "is not the row id"),
        (["CREATE TABLE a (b TEXT, c TEXT, PRIMARY KEY (b, c))"], {"table": "a"}, "table", "is (b TEXT, c TEXT), which is not the row id"),
        (["CREATE TABLE a (id INTEGER PRIMARY KEY, time) WITHOUT ROWID"], {"table": "a"}, "table", "WITHOUT ROWID"),
        ([READINGS, "CREATE VIEW v AS SELECT * FROM readings"], {"table": "v"}, "table", "is a view"),
        (["CREATE VIRTUAL TABLE f USING fts5(body)"], {"table": "f"}, "table", "virtual table"),
        (["CREATE TABLE a (id INTEGER PRIMARY KEY, time, _row)"], {}, "columns", "'_row', a name kept for row keys"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, script: list[str], options: dict, option: str, words: str) -> None:
    path = database(tmp_path / "a.db", *script)
    with pytest.raises(OptionError) as caught:
        SqliteSource(path, **options).schema()
    assert caught.value.option == option
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_a_table_without_time_may_be_named(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", "CREATE TABLE a (id INTEGER, x, PRIMARY KEY (id DESC))", rows=[(3, 1)], into="a")
    assert good(read(path, table="a")) == [{"_row": 3, "id": 3, "x": "1"}]


@pytest.mark.parametrize(("make", "words"), [
    (lambda path: None, "does not exist"), (lambda path: path.mkdir(), "is a folder"),
    (lambda path: path.write_text("hello\n" * 500), "is not a SQLite database"), (lambda path: path.touch(), "has no tables"),
])  # fmt: skip
def test_a_path_that_is_no_database_is_said_in_one_line(tmp_path: Path, make, words: str) -> None:
    make(tmp_path / "a.db")
    with pytest.raises(OptionError, match=words) as caught:
        SqliteSource(tmp_path / "a.db").schema()
    assert caught.value.option == "path"


def test_paths_may_have_any_characters(tmp_path: Path) -> None:
    path = database(tmp_path / "sensor #1?mode=rw&x%20ä 🌡️.db", READINGS, rows=[(1, "t", 1.0, 1, None)])
    assert len(good(read(path))) == 1


# -- while it runs -----------------------------------------------------------------------------------------------------


def test_changed_columns_refuse_to_go_on(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", READINGS, rows=[(1, "t", 1.0, 1, None), (2, "t", 1.0, 1, None)])
    source, narrow = SqliteSource(path), SqliteSource(path, columns=["level"])
    batches, others = source.read(None, 1), narrow.read(None, 1)
    next(batches)
    next(others)
    database(path, "ALTER TABLE readings ADD COLUMN humidity REAL")
    with pytest.raises(Refused, match="columns of table 'readings' changed; start the run again"):
        next(batches)
    assert next(others).rows.to_pylist() == [{"_row": 2, "level": 1}]
    database(path, "ALTER TABLE readings RENAME COLUMN level TO water_level")
    with pytest.raises(Refused, match=r"no column 'level'.*start the run again"):
        next(narrow.read(None, 1))


def test_what_is_gone_for_a_moment_is_tried_again(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", READINGS, rows=[(1, "t", 1.0, 1, None)])
    source = SqliteSource(path)
    source.schema()
    path.rename(tmp_path / "away.db")
    with pytest.raises(Retry, match="is gone"):
        next(source.read(None, 10))
    database(path, "CREATE TABLE something (id INTEGER PRIMARY KEY)")
    with pytest.raises(Retry, match="table 'readings' is gone"):
        next(source.read(None, 10))
    path.unlink()
    (tmp_path / "away.db").rename(path)
    assert len(list(source.read(None, 10))) == 1


def another_process(script: str, *arguments: object) -> subprocess.Popen:
    """Locks belong to processes, so only another one can be the sensor."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_locked_database_is_tried_again(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", READINGS, rows=[(1, "t", 1.0, 1, None)])
    sensor = another_process("""
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        print("locked", flush=True)
        sys.stdin.read()""", path)  # fmt: skip
    with sensor:
        assert sensor.stdout.readline() == "locked\n"
        with pytest.raises(Retry, match="is locked"):
            read(path, busy_timeout=timedelta(milliseconds=20))
        sensor.kill()
    assert len(good(read(path))) == 1


@pytest.mark.parametrize("position", [{"id": "1"}, {"id": True}, {"id": None}, {"file": "a"}, {}])
def test_a_position_of_something_else_is_refused(tmp_path: Path, position: dict) -> None:
    path = database(tmp_path / "a.db", READINGS)
    with pytest.raises(Refused, match="not a position in a SQLite table"):
        read(path, after=position)


SENSOR = """
    import sqlite3, sys, time
    path, mode, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    connection = sqlite3.connect(path, isolation_level=None, timeout=0 if mode == "WAL" else 5)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, temperature REAL)")
    print("ready", flush=True)
    begin, written = time.monotonic(), 0
    while time.monotonic() < begin + seconds:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO readings (timestamp, temperature) VALUES (?, ?)", [("t" * 150, i / 7) for i in range(100)])
        connection.execute("COMMIT")
        written += 100
        time.sleep(max(0, begin + written / 40_000 - time.monotonic()))  # faster than any sensor
    print(written, flush=True)
"""


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_the_sensor_writes_on_undisturbed_and_each_row_arrives_once(tmp_path: Path, mode: str) -> None:
    path, wal, got, sizes = tmp_path / "a.db", tmp_path / "a.db-wal", [], []
    with another_process(SENSOR, path, mode, 1.5) as sensor:
        assert sensor.stdout.readline() == "ready\n"
        source, position, over = SqliteSource(path), None, False
        while not over:
            over = sensor.poll() is not None  # and then once more, for what it wrote last
            for batch in source.read(position, 5000):
                position = batch.position
                got += batch.rows.column("_row").to_pylist()
                sizes.append(wal.stat().st_size if wal.exists() else 0)
                time.sleep(0.01)  # a slow sink: the read is suspended, and must not be in the way
        assert sensor.wait() == 0
        written = int(sensor.stdout.readline())
    assert got == list(range(1, written + 1))
    assert written > 10_000
    assert max(sizes) < 8 * 2**20
    assert (max(sizes) > 0) == (mode == "WAL")


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_explain_shows_the_statement_that_runs(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", READINGS, rows=[(1, "t", 1.5, 1, None), (2, "t", 2.5, 1, None)])
    sql = SqliteSource(path, columns=["temperature"]).explain()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(sql, {"last": 1, "rows": 10}).fetchall() == [(None, 0.5), (2, 2.5)]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real sensor data in {DATA}")
@pytest.mark.parametrize("name", [
    "brightwind_mast_2016", "gpx_tracks", "ioos_water_level_2018", "kelmarsh_t2_2020", "nab_ambient_temperature", "nyc_asos_ewr_lga_2013",
])  # fmt: skip
def test_real_sensor_data_is_read_exactly(name: str) -> None:
    path = DATA / f"{name}.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        wanted = connection.execute("SELECT id, * FROM sensor_readings ORDER BY id").fetchall()
    source = SqliteSource(path)
    batches = list(source.read(None, 10_000))
    assert (source.table_name, source.timestamp_column) == ("sensor_readings", "timestamp")
    assert [row for batch in batches for row in zip(*(column.to_pylist() for column in batch.rows.columns), strict=True)] == wanted
    assert all(batch.rejected is None for batch in batches)
