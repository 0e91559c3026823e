"""How the source opens a database under every mount, journal mode, end of its writer and user: right rows or a named error,
and a sensor that can always write afterwards."""

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp

import pytest

from lakeward import OptionError, Refused, Retry
from lakeward_plugins.sources.sqlite import SqliteSource, opening

TRUTH = {"rows": 150, "texts": ["x" * 500]}
OWNER, STRANGER, ROOT = 1000, 2000, 0
IN_PLACE, FROZEN, COPY = "in its place", "immutable", "copy"


class Others:
    """Talks to other_users.py."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("other_users.py"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, do: str, *, uid: int | None = None, mount: tuple | None = None, **options: object) -> dict:
        command = {"do": do, "with": options} | ({} if uid is None else {"uid": uid}) | ({} if mount is None else {"mount": mount})
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        watchdog = threading.Timer(120, self.process.kill)
        watchdog.start()
        try:
            return json.loads(self.process.stdout.readline())
        finally:
            watchdog.cancel()


@pytest.fixture(scope="module")
def others() -> Iterator[Others]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be other users")
    running = Others()
    try:
        yield running
    finally:
        running.process.stdin.close()
        assert running.process.wait(timeout=30) == 0
        running.process.stdout.close()


@pytest.fixture
def mounts(others: Others, tmp_path: Path) -> Others:
    (tmp_path / "probe").mkdir()
    answer = others("nothing", mount=(str(tmp_path), str(tmp_path / "probe"), True))
    if answer:
        pytest.skip(f"needs bind mounts: {answer['message']}")
    return others


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where every user can get to, unlike below tmp_path."""
    made = Path(mkdtemp(prefix="lakeward-test-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


class Sensor:
    """Writes a database, as a user, and comes to one of three ends."""

    def __init__(self, others: Others, path: Path, mode: str, end: str, uid: int = ROOT) -> None:
        self.others, self.path, self.end, self.uid = others, path, end, uid
        os.mkfifo(f"{path}.go")
        os.mkfifo(f"{path}.said")
        for pipe in ("go", "said"):
            Path(f"{path}.{pipe}").chmod(0o666)
        assert others("sensor", uid=uid, path=str(path), mode=mode, end=end) == {}

    def can_write(self) -> bool:
        """First the sensor that is still there, if it is, then one that starts again."""
        if self.end == "alive":
            Path(f"{self.path}.go").write_text("")
            if Path(f"{self.path}.said").read_text() != "ok":
                return False
        return self.others("write", uid=self.uid, path=str(self.path)) == {"integrity": "ok"}


CELLS = [
    ("folder", "WAL", "alive", IN_PLACE), ("folder", "WAL", "closed", IN_PLACE), ("folder", "WAL", "killed", IN_PLACE),
    ("folder", "DELETE", "alive", IN_PLACE), ("folder", "DELETE", "closed", IN_PLACE), ("folder", "DELETE", "killed", COPY),
    ("read-only", "WAL", "alive", IN_PLACE), ("read-only", "WAL", "closed", FROZEN), ("read-only", "WAL", "killed", IN_PLACE),
    ("read-only", "DELETE", "alive", IN_PLACE), ("read-only", "DELETE", "closed", IN_PLACE), ("read-only", "DELETE", "killed", COPY),
    ("file", "WAL", "alive", None), ("file", "WAL", "closed", None), ("file", "WAL", "killed", None),
    ("file", "DELETE", "alive", None), ("file", "DELETE", "closed", None), ("file", "DELETE", "killed", None),
]  # fmt: skip


@pytest.mark.parametrize(("how", "mode", "end", "way"), CELLS)
def test_each_mount_journal_and_end_of_the_writer(mounts: Others, tmp_path: Path, how: str, mode: str, end: str, way: str | None) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    sensor = Sensor(mounts, there / "a.db", mode, end)
    if how == "file":
        (here / "a.db").touch()
        answer = mounts("read", mount=(str(there / "a.db"), str(here / "a.db"), True), path=str(here / "a.db"))
        assert answer["error"] == "OptionError"
        assert "is mounted as a single file" in answer["message"]
        assert "Mount its folder instead" in answer["message"]
    else:
        before = mine(there)
        answer = mounts("read", mount=(str(there), str(here), how == "read-only"), path=str(here / "a.db"))
        assert way in answer.pop("way", str(answer))
        assert answer == TRUTH
        if how == "read-only":
            assert mine(there) == before
    assert sensor.can_write()


def mine(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_lone_wal_file_behind_a_read_only_mount_is_read_from_a_copy(mounts: Others, tmp_path: Path) -> None:
    there, here, keep = tmp_path / "there", tmp_path / "here", tmp_path / "keep"
    there.mkdir()
    here.mkdir()
    Sensor(mounts, there / "a.db", "WAL", "killed")
    (there / "a.db-shm").unlink()
    answer = mounts("read", mount=(str(there), str(here), True), path=str(here / "a.db"), keep=str(keep))
    assert COPY in answer.pop("way")
    assert answer == TRUTH
    assert (keep / "copy.db").exists()


# -- other users -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["alive", "closed", "killed"])
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
@pytest.mark.parametrize(("rights", "file_rights"), [(0o777, 0o644), (0o755, 0o644), (0o777, 0o666)])
@pytest.mark.parametrize("reader", [OWNER, STRANGER, ROOT])
def test_no_user_who_reads_stops_the_sensor(
    others: Others, folder: Path, reader: int, rights: int, file_rights: int, mode: str, end: str
) -> None:
    data = folder / "data"
    data.mkdir()
    os.chown(data, OWNER, OWNER)
    data.chmod(rights)
    path = data / "a.db"
    path.touch()
    os.chown(path, OWNER, OWNER)
    path.chmod(file_rights)
    sensor = Sensor(others, path, mode, end, OWNER)
    answer = others("read", uid=reader, path=str(path))
    way = answer.pop("way", "")
    if reader == STRANGER and mode == "WAL" and (rights, file_rights) == (0o777, 0o644):
        assert answer["error"] == "OptionError"
        assert f"Run lakeward as user {OWNER}" in answer["message"]
        assert "or mount the folder read-only" in answer["message"]
    else:
        assert answer == TRUTH
        assert way
    assert sensor.can_write()


def test_what_the_refusal_of_a_stranger_prevents(others: Others, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for the rule: SQLite itself leaves files that the sensor cannot write."""
    folder.chmod(0o777)
    sensor = Sensor(others, folder / "a.db", "WAL", "closed", OWNER)
    assert others("stranger", uid=STRANGER, path=str(folder / "a.db")) == {"rows": 150}
    assert (folder / "a.db-shm").stat().st_uid == STRANGER
    assert not sensor.can_write()


# -- frozen files and copies -------------------------------------------------------------------------------------------


def killed_in_a_transaction(path: Path, rows: int = 150) -> Path:
    """A database with a journal that must be rolled back first."""
    script = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT)")
connection.execute("BEGIN")
connection.executemany("INSERT INTO readings (timestamp) VALUES (?)", [("x" * 500,)] * int(sys.argv[2]))
connection.execute("COMMIT")
connection.execute("PRAGMA cache_size = 2")
connection.execute("BEGIN")
connection.execute("UPDATE readings SET timestamp = 'half'")
os._exit(9)"""
    assert subprocess.run([sys.executable, "-c", script, path, str(rows)], check=False).returncode == 9
    assert Path(f"{path}-journal").stat().st_size
    return path


def texts(source: SqliteSource, limit: int = 1000) -> list[str]:
    return [text for batch in source.read(None, limit) for text in batch.rows.column("timestamp").to_pylist()]


def test_a_copy_is_made_once_kept_private_and_removed_when_it_is_not_needed_any_more(tmp_path: Path) -> None:
    path, keep = killed_in_a_transaction(tmp_path / "a.db"), tmp_path / "state" / "source"
    source = SqliteSource(path)
    source.keep_in(keep)
    assert texts(source, 40) == ["x" * 500] * 150
    copy = (keep / "copy.db").stat()
    assert keep.stat().st_mode & 0o077 == 0
    assert texts(source, 40) == ["x" * 500] * 150
    assert (keep / "copy.db").stat().st_ino == copy.st_ino
    assert Path(f"{path}-journal").stat().st_size  # the sensor's files are as they were
    with closing(sqlite3.connect(path)) as sensor, sensor:  # it comes back, rolls back, and writes
        sensor.execute("INSERT INTO readings (timestamp) VALUES ('later')")
    assert texts(source)[-1] == "later"
    assert list(keep.iterdir()) == []


def test_a_changed_file_is_copied_again(tmp_path: Path) -> None:
    path, keep = killed_in_a_transaction(tmp_path / "a.db"), tmp_path / "keep"
    source = SqliteSource(path)
    source.keep_in(keep)
    assert len(texts(source)) == 150
    for end in ("", "-journal"):
        Path(f"{path}{end}").unlink()
    killed_in_a_transaction(path, 70)
    assert len(texts(source)) == 70


def test_without_a_folder_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = killed_in_a_transaction(tmp_path / "a.db")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert len(texts(SqliteSource(path))) == 150
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_file_that_is_written_while_it_is_copied_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, copyfile = killed_in_a_transaction(tmp_path / "a.db"), shutil.copyfile
    source = SqliteSource(path)
    source.schema()

    def copied_before_the_sensor_writes(*names: str) -> None:
        copyfile(*names)
        with path.open("r+b") as file:
            file.write(path.read_bytes()[:1])

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", copied_before_the_sensor_writes)
        with pytest.raises(Retry, match="was written while it was copied"):
            texts(source)
    assert texts(source) == ["x" * 500] * 150


def test_a_file_that_is_written_all_the_time_is_not_copied(tmp_path: Path) -> None:
    path, done = killed_in_a_transaction(tmp_path / "a.db"), threading.Event()

    def rewrite() -> None:
        with path.open("r+b") as file:
            while not done.is_set():
                file.seek(0)
                file.write(b"S")  # as it is
                file.flush()
                time.sleep(0.001)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        with pytest.raises(Retry, match="is being written and cannot be opened in its place"):
            texts(SqliteSource(path))
    finally:
        done.set()
        writer.join()


def test_no_room_for_the_copy_is_tried_again(tmp_path: Path) -> None:
    path = killed_in_a_transaction(tmp_path / "a.db")
    source = SqliteSource(path)
    assert source.schema()
    (tmp_path / "file").touch()
    source.keep_in(tmp_path / "file" / "below")
    with pytest.raises(Retry, match="must be copied to be read, and cannot be: "):
        texts(source)


def test_half_a_copy_does_not_stay_on_a_full_disk(tmp_path: Path) -> None:
    path, keep = killed_in_a_transaction(tmp_path / "a.db"), tmp_path / "keep"
    source = SqliteSource(path)
    assert source.schema()
    source.keep_in(keep)
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, most))  # as if the disk was full half-way
    try:
        with pytest.raises(Retry, match="must be copied to be read, and cannot be: "):
            texts(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert list(keep.iterdir()) == []
    assert len(texts(source)) == 150


@pytest.mark.parametrize("change", ["write", "wal", "journal", "replace"])
def test_what_was_read_from_a_frozen_file_counts_only_if_it_is_the_same_afterwards(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"x" * 100)
    real = Path(os.path.realpath(path))
    before = opening._settled(path, real)
    with opening._unchanged(path, real, before):
        pass
    reading = opening._unchanged(path, real, before)
    reading.__enter__()
    if change == "write":
        path.write_bytes(b"y" * 100)
    elif change == "replace":
        (tmp_path / "b").write_bytes(b"x" * 100)
        os.utime(tmp_path / "b", ns=(before[0][2], before[0][2]))
        (tmp_path / "b").rename(path)
    else:
        Path(f"{path}-{change}").touch()
    malformed = Refused("as pages of two moments are")
    with pytest.raises(Retry, match="what was read is thrown away"):
        reading.__exit__(Refused, malformed, None)


def test_a_frozen_file_that_changes_in_the_middle_gives_no_batch(mounts: Others, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    Sensor(mounts, there / "a.db", "WAL", "closed")
    answer = mounts("read and write", mount=(str(there), str(here), True), path=str(here / "a.db"), other=str(there / "a.db"))
    assert answer["error"] == "Retry"
    assert "what was read is thrown away" in answer["message"]


def test_symbolic_links_are_followed_to_the_files_beside_the_database(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path = killed_in_a_transaction(tmp_path / "real" / "a.db")
    (tmp_path / "link.db").symlink_to(path)
    assert texts(SqliteSource(tmp_path / "link.db")) == ["x" * 500] * 150


def test_mount_points_with_spaces_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my sensor\\1.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT)")
    point = str(path.resolve()).replace("\\", "\\134").replace(" ", "\\040")
    (tmp_path / "mountinfo").write_text(f"22 26 0:20 / {point} rw - ext4 /dev/sda rw\n")
    assert SqliteSource(path).schema()
    monkeypatch.setattr(opening, "MOUNTS", tmp_path / "mountinfo")
    with pytest.raises(OptionError, match="is mounted as a single file"):
        SqliteSource(path).schema()


def test_a_run_keeps_the_copy_in_its_state_directory(tmp_path: Path) -> None:
    killed_in_a_transaction(tmp_path / "a.db")
    (tmp_path / "pipeline.yaml").write_text("name: p\nsource: {use: sqlite, path: a.db}\nsinks: {out: {use: parquet, path: lake}}\n")
    command = [sys.executable, "-m", "lakeward", "run", "pipeline.yaml", "--once", "--state-dir", "state"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, "150 rows read = 150 delivered" in ran.stdout + ran.stderr) == (0, True), ran.stderr
    assert (tmp_path / "state" / "source" / "copy.db").stat().st_size
    assert (tmp_path / "a.db-journal").stat().st_size
