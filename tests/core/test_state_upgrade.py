"""A state that an older lakeward made goes on where it was."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lakeward.components import Event, Receipt
from lakeward.recording import Recording
from lakeward.state import State
from lakeward.statefile import Checkpoint

SCHEMA_1 = """
PRAGMA journal_mode=WAL;
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE checkpoint (
  only INTEGER PRIMARY KEY CHECK (only = 1), position TEXT NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL, at TEXT NOT NULL
);
CREATE TABLE transform_state (node TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE parcels (
  sink TEXT NOT NULL, sequence INTEGER NOT NULL, epoch INTEGER NOT NULL, file TEXT NOT NULL, rows INTEGER NOT NULL,
  bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (sink, sequence)
) WITHOUT ROWID;
CREATE INDEX parcels_by_file ON parcels (file);
CREATE TABLE receipts (
  sink TEXT PRIMARY KEY, sequence INTEGER NOT NULL, location TEXT NOT NULL, details TEXT NOT NULL, at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY AUTOINCREMENT, stage TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, origin TEXT NOT NULL,
  epoch INTEGER NOT NULL, row_low INTEGER, row_high INTEGER, payload TEXT NOT NULL, first_seen TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 1, status TEXT NOT NULL DEFAULT 'open'
);
CREATE TABLE totals (kind TEXT NOT NULL, name TEXT NOT NULL, rows INTEGER NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
INSERT INTO about VALUES ('life', 'cafe0123'), ('pipeline', 'old');
INSERT INTO transform_state VALUES ('main.windows', x'0102');
INSERT INTO parcels VALUES ('lake', 7, 2, '0002-0000000007-0.parquet', 10, 1234, 'abc'),
  ('lake', 8, 2, '0002-0000000008-0.parquet', 5, 99, 'def');
INSERT INTO receipts VALUES ('lake', 6, 'lake/x', '{}', '2026-01-01T00:00:00+00:00');
INSERT INTO dead_letters (stage, reason, detail, origin, epoch, row_low, payload, first_seen)
  VALUES ('source', 'type', 'bad', 'sensor.db', 2, 41, '{"a": "x"}', '2026-01-01T00:00:00+00:00');
INSERT INTO totals VALUES ('rows', 'read', 100);
PRAGMA user_version = 1;
"""
POSITIONS = [None, {"id": 123}, {"file": "a/it's.parquet", "row": 5, "deep": {"a": [1, None, True, 0.1, "ü"]}, "yes": True}]


@pytest.mark.parametrize("position", POSITIONS)
def test_a_state_of_schema_1_goes_on(tmp_path: Path, position: dict[str, object] | None) -> None:
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as old:
        old.executescript(SCHEMA_1)
        old.execute("INSERT INTO checkpoint VALUES (1, ?, 2, 8, '2026-01-01T00:00:00+00:00')", (json.dumps(position),))
    for _ in range(2):  # the second time it is of today's schema
        with State.hold(tmp_path) as state:
            assert (state.life, state.checkpoint()) == ("cafe0123", Checkpoint(position, 2, 8))
            assert state.transform_state("main.windows") == b"\x01\x02"
            assert state.waiting() == {"lake": (2, 15)}
            assert [letter["row_low"] for letter in state.letters.find()] == [41]
            assert (state.totals(), state.events(), state.troubles()) == ({"rows": {"read": 100}}, [], {})
            parcel = state.next_parcel("lake", "old", tmp_path / "spool")
            assert parcel is not None
            assert (parcel.token.name, parcel.path.name, parcel.sha256) == (
                "lake-cafe0123-0002-0000000007",
                "0002-0000000007-0.parquet",
                "abc",
            )
    with State.hold(tmp_path) as state:
        assert state.settle(parcel, Receipt("there"))
        state.record(Recording(9, 2, {"id": 200}, {}, [], [], {}, [Event("gap", "ids 1 to 3", 3)], "sensor.db"))
        assert state.checkpoint() == Checkpoint({"id": 200}, 2, 9)
        assert [(event["kind"], event["origin"], event["rows"]) for event in state.events()] == [("gap", "sensor.db", 3)]


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as old:
        old.executescript(SCHEMA_1 + "CREATE TABLE events (a);")  # in the way of the new one
    with pytest.raises(Exception, match=r"events already exists.*start anew"), State.hold(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "state.db")) as old:
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
        assert len(old.execute("SELECT sink, sequence, epoch FROM parcels").fetchall()) == 2
