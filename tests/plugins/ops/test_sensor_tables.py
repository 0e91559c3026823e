import sqlite3
from pathlib import Path

import pytest

from lakeward import Refused
from lakeward_plugins.ops.sensor_tables import COLUMNS, Tables
from lakeward_plugins.ops.simulator import Fleet, sensor_in_plant


def ids(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT id FROM sensor_readings ORDER BY id")]
    finally:
        connection.close()


def written(path: Path, count: int, *, fresh: bool = False) -> None:
    fleet = Fleet([sensor_in_plant(1, path)], 1, (), 0.0, None)
    tables = Tables([path], fresh=fresh)
    tables.write(fleet.readings(count, str))
    tables.close()


def test_adds_to_what_is_there_unless_told_to_start_afresh(tmp_path: Path) -> None:
    path = tmp_path / "deep/folder/sensor.db"
    written(path, 3)
    written(path, 2)
    assert ids(path) == [1, 2, 3, 4, 5]
    written(path, 2, fresh=True)
    assert ids(path) == [1, 2]


def test_a_reader_sees_committed_rows_while_the_sensor_writes(tmp_path: Path) -> None:
    path = tmp_path / "sensor.db"
    fleet = Fleet([sensor_in_plant(1, path)], 1, (), 0.0, None)
    tables = Tables([path], fresh=False)
    tables.write(fleet.readings(5, str))
    assert len(ids(path)) == 5
    assert (tmp_path / "sensor.db-wal").exists()
    tables.close()
    assert not (tmp_path / "sensor.db-wal").exists()


def test_a_table_of_another_shape_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE sensor_readings (id INTEGER PRIMARY KEY, timestamp TEXT)")
    connection.close()
    with pytest.raises(ValueError, match=r"other.db: its table sensor_readings has no column anomaly_flag, .*, voltage; choose another"):
        Tables([path], fresh=False)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path, fresh: bool) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("three years of work, all of it in here")
    with pytest.raises(ValueError, match="no SQLite database"):
        Tables([path], fresh=fresh)
    assert path.read_text().startswith("three years")


def test_a_table_with_the_key_column_of_older_files_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "older.db"
    connection = sqlite3.connect(path)
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    connection.execute(f"CREATE TABLE sensor_readings (reading_id INTEGER PRIMARY KEY, {columns})")
    connection.close()
    written(path, 2)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT reading_id, sensor_id FROM sensor_readings").fetchall() == [(1, "SENSOR_00001"), (2, "SENSOR_00001")]
    connection.close()


def test_a_database_that_takes_no_more_stops_the_sensor_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "sensor.db"
    fleet = Fleet([sensor_in_plant(1, path)], 1, (), 0.0, None)
    tables = Tables([path], fresh=False)
    tables.write(fleet.readings(2, str))
    other = sqlite3.connect(path)
    other.execute("DROP TABLE sensor_readings")
    other.close()
    with pytest.raises(Refused, match=r"sensor.db: a reading cannot be written: no such table"):
        tables.write(fleet.readings(1, str))
    tables.close()
