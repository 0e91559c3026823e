from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from lakeward.components import Event, Parcel, Receipt
from lakeward.deadletters.box import DeadLetter
from lakeward.recording import Recording, Share
from lakeward.state import State
from lakeward.statefile import Checkpoint, UnusableState

SPOOL = Path("/spool")
LETTER = DeadLetter("source", "utf8", "bad bytes", "a.db", 0, 7, '{"a": 1}')


def batch(sequence: int, *sinks: str, rows: int = 10, **changes: Any) -> Recording:
    """A batch whose sinks share one file of 100 bytes."""
    shares = [Share(sink, f"f{sequence}.parquet", rows, 100, f"sha{sequence}") for sink in sinks]
    return evolve(Recording(sequence, 0, {"row": sequence}, {}, shares, [], {("rows", "read"): rows}), **changes)


def next_parcel(state: State, sink: str) -> Parcel | None:
    return state.next_parcel(sink, "pipe", SPOOL)


def must(parcel: Parcel | None) -> Parcel:
    assert parcel is not None
    return parcel


@contextmanager
def looked(directory: Path) -> Iterator[State]:
    with State.look(directory) as state:
        assert state is not None
        yield state


# -- what is recorded is there again -----------------------------------------------------------------------------------


def test_a_new_state_is_empty(tmp_path: Path) -> None:
    with State.hold(tmp_path / "a" / "b") as state:
        assert (state.checkpoint(), state.transform_state("x"), next_parcel(state, "x")) == (None, None, None)
        assert (state.waiting(), state.waiting_bytes(), set(state.checksums()), state.totals()) == ({}, 0, set(), {})
        assert (state.receipts(), state.letters.find(), state.letters.counts()) == ([], [], {})


def test_all_of_a_batch_is_there_after_a_restart(tmp_path: Path) -> None:
    position = {"files": {"ü.db": [1, 2.5, None]}}
    with State.hold(tmp_path) as state:
        state.record(batch(1, "raw", epoch=3, position=position, states={"window": b"\0\xff", "other": b""}, dead=[LETTER]))
        state.record(batch(2, "raw", epoch=4, position=position, states={"window": b"new"}))
        life = state.life
    with State.hold(tmp_path) as state:
        assert state.checkpoint() == Checkpoint(position, 4, 2)
        assert (state.transform_state("window"), state.transform_state("other")) == (b"new", b"")
        parcel = must(next_parcel(state, "raw"))
        assert (parcel.path, parcel.rows, parcel.sha256) == (SPOOL / "f1.parquet", 10, "sha1")
        assert str(parcel.token) == f"pipe/raw-{life}-0003-0000000001"
        assert state.letters.counts() == {("source", "utf8"): 1}


def test_parcels_come_in_the_order_of_their_batches_for_each_sink_alone(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        for sequence in (1, 2, 9, 10, 11):
            state.record(batch(sequence, *(["a", "b"] if sequence != 2 else ["b"])))
        assert state.waiting() == {"a": (4, 40), "b": (5, 50)}
        assert state.waiting_bytes() == 500
        delivered = []
        while parcel := next_parcel(state, "a"):
            delivered.append(parcel.token.sequence)
            state.settle(parcel, Receipt("lake"))
        assert delivered == [1, 9, 10, 11]
        assert must(next_parcel(state, "b")).token.sequence == 1
        assert state.waiting() == {"b": (5, 50)}


def test_the_last_sink_that_settles_says_that_the_file_is_needed_no_more(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        state.record(batch(1, "a", "b", "c"))
        parcels = [must(next_parcel(state, sink)) for sink in "abc"]
        assert [state.settle(parcels[0], Receipt("x")), state.refuse(parcels[1], []), state.settle(parcels[2], Receipt("x"))] == [
            False,
            False,
            True,
        ]
        assert set(state.checksums()) == set()


def test_the_newest_receipt_of_each_sink_is_kept(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        for sequence in (1, 2):
            state.record(batch(sequence, "a"))
            state.settle(must(next_parcel(state, "a")), Receipt(f"lake/{sequence}", {"version": sequence, "new": True}))
        (receipt,) = state.receipts()
    assert (receipt["sink"], receipt["sequence"], receipt["location"], receipt["details"]) == (
        "a",
        2,
        "lake/2",
        {"version": 2, "new": True},
    )


def test_rows_that_a_sink_refuses_become_dead_letters_and_are_counted(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        state.record(batch(1, "a", "b", dead=[LETTER], totals={("rows", "read"): 10, ("filtered", "hot: rule"): 2}))
        state.record(batch(2, "a", totals={("rows", "read"): 5}))
        state.refuse(
            must(next_parcel(state, "a")), [evolve(LETTER, stage="sink a", reason="sink_rejected", detail="x" * 900, row=1, row_high=3)] * 2
        )
        state.settle(must(next_parcel(state, "a")), Receipt("x"))
        newest, _, oldest = state.letters.find()
        assert (newest["stage"], newest["row_low"], newest["row_high"], newest["detail"]) == ("sink a", 1, 3, "x" * 500)
        assert (oldest["stage"], oldest["row_low"], oldest["row_high"], oldest["payload"], oldest["status"]) == (
            "source",
            7,
            None,
            '{"a": 1}',
            "open",
        )
        assert [letter["id"] for letter in state.letters.find(limit=2)] == [3, 2]
        assert state.letters.counts() == {("sink a", "sink_rejected"): 2, ("source", "utf8"): 1}
        assert state.totals() == {"rows": {"read": 15}, "filtered": {"hot: rule": 2}, "refused": {"a": 10}, "delivered": {"a": 10}}


def test_a_batch_that_cannot_be_recorded_changes_nothing(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        state.record(batch(1, "a"))
        before = (state.checkpoint(), state.totals(), state.waiting())
        for wrong in (
            batch(1, "b", "a", dead=[LETTER]),
            batch(2, "a", position={"x": b"bytes"}),
            batch(3, "a", "a"),
            batch(4, totals={("x", "y"): None}),
        ):
            with pytest.raises((sqlite3.IntegrityError, TypeError)):
                state.record(wrong)
            assert (state.checkpoint(), state.totals(), state.waiting()) == before
        assert state.letters.find() == []
        state.record(batch(2, "a"))


# -- looking -----------------------------------------------------------------------------------------------------------


def test_looking_at_no_state_makes_none(tmp_path: Path) -> None:
    with State.look(tmp_path / "none") as nothing:
        assert nothing is None
    assert not (tmp_path / "none").exists()


def test_looking_between_runs_sees_all_and_leaves_no_file(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        state.record(batch(1, "a"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with looked(tmp_path) as seen:
        assert seen.waiting() == {"a": (1, 10)}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_looking_works_while_held_and_never_writes(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        state.record(batch(1, "a"))
        with looked(tmp_path) as seen:
            assert (seen.life, seen.checkpoint(), seen.waiting()) == (state.life, state.checkpoint(), {"a": (1, 10)})
            state.record(batch(2, "a"))
            assert seen.waiting() == {"a": (1, 10)}, "all that is asked is of one moment"
            with pytest.raises(UnusableState):
                seen.record(batch(3, "a"))
        with looked(tmp_path) as seen:
            assert seen.waiting() == {"a": (2, 20)}


# -- changing a state that a run holds ---------------------------------------------------------------------------------


def test_a_small_change_beside_a_run_is_seen_by_it_and_disturbs_nothing(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        state.record(batch(1, "a"))
        with State.beside(tmp_path) as other:
            other.tell(Event("noted", "by a person", 3))
            assert other._connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert [(event["kind"], event["detail"], event["rows"]) for event in state.events()] == [("noted", "by a person", 3)]
        state.record(batch(2, "a"))
        assert state.waiting() == {"a": (2, 20)}
    with State.beside(tmp_path) as other:
        other.tell(Event("noted", "between runs"))
    with looked(tmp_path) as seen:
        assert [event["detail"] for event in seen.events()] == ["between runs", "by a person"]
        assert seen.checkpoint() == Checkpoint({"row": 2}, 0, 2)


def test_nothing_is_changed_beside_a_state_that_is_not_there_or_not_of_now(tmp_path: Path) -> None:
    with pytest.raises(UnusableState, match="no run has made a state here yet"), State.beside(tmp_path / "none"):
        pass
    assert not (tmp_path / "none").exists()
    (tmp_path / "state.db").touch()
    with pytest.raises(UnusableState, match="no run has made a state here yet"), State.beside(tmp_path):
        pass


# -- states that cannot be used ----------------------------------------------------------------------------------------


def _newer(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()


def _foreign(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.executescript("CREATE TABLE readings (a); PRAGMA user_version = 1")
    connection.close()


def _torn(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[100:1000] = b"\xff" * 900  # the table of contents, behind a header that is still good
    file.write_bytes(content)


SPOILT = {
    "newer": (_newer, "made by a newer lakeward .state schema 3, this one knows 2.; upgrade lakeward"),
    "garbage": (lambda file: file.write_bytes(b"garbage" * 1000), "file is not a database; start anew with another --state-dir"),
    "torn": (_torn, "malformed.*; start anew with another --state-dir"),
    "another program's": (
        _foreign,
        "(no such table: checkpoint; start anew with another --state-dir|made by an older lakeward; the next run)",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_an_unusable_state_is_refused_and_left_as_it_is(tmp_path: Path, spoil: Any, message: str) -> None:
    with State.hold(tmp_path) as state:
        state.record(batch(1, "a"))
    file = tmp_path / "state.db"
    spoil(file)
    before = file.read_bytes()
    for way in (State.hold, State.look):
        with pytest.raises(UnusableState, match=f"^{file}: .*{message}"), way(tmp_path):
            pass
        assert file.read_bytes() == before


def test_a_state_belongs_to_the_first_pipeline_that_ran_with_it(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        state.claim("a")
    with State.hold(tmp_path) as state:
        state.claim("a")
        with pytest.raises(UnusableState, match="is the state of pipeline 'a'; give 'b' another --state-dir"):
            state.claim("b")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_bytes(b"")])
def test_a_state_that_got_lost_under_its_runs_is_not_begun_anew_in_silence(tmp_path: Path, spoil: Any) -> None:
    with State.hold(tmp_path):
        (tmp_path / "spool").mkdir()  # as a run does
    spoil(tmp_path / "state.db")
    for _ in range(2):
        with (
            pytest.raises(UnusableState, match="empty or gone, although runs were here; start anew"),
            State.hold(tmp_path),
        ):
            pass


def test_a_state_that_may_not_be_opened_is_a_matter_of_rights_and_not_of_backups(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()  # even root cannot open this one
    with pytest.raises(UnusableState, match="unable to open database file; give this user the right"), State.hold(tmp_path):
        pass


def test_what_a_crash_at_the_very_start_left_is_no_state_yet(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    with State.look(tmp_path) as nothing:
        assert nothing is None
    with State.hold(tmp_path) as state:
        state.record(batch(1, "a"))


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below", tmp_path / ("x" * 300)):
        with pytest.raises(UnusableState, match=f"^{folder}: .*choose another --state-dir"), State.hold(folder):
            pass
    closed = tmp_path / "closed"
    with State.hold(closed):
        pass
    closed.chmod(0)
    for way in (State.hold, State.look):
        with pytest.raises(UnusableState, match=f"^{closed}.*: Permission denied"), _not_root(), way(closed):
            pass


@contextmanager
def _not_root() -> Iterator[None]:
    """Root may read everything, and the tests of a container often run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_life_stays_within_a_folder_and_differs_between_folders(tmp_path: Path) -> None:
    lives = []
    for name in ("a", "b", "a", "b"):
        with State.hold(tmp_path / name) as state:
            lives.append(state.life)
    assert lives[:2] == lives[2:]
    assert lives[0] != lives[1]
    assert [len(life) for life in lives] == [16] * 4, "hexadecimal digits: a fleet of any size may write into one table"


def test_every_commit_is_synced(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        ask = state._connection.execute  # synchronous is a property of the connection that writes
        assert ask("PRAGMA synchronous").fetchone() == (2,)
        assert ask("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_state_is_of_one_pipeline_for_ever(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        state.claim("one")
    with State.hold(tmp_path) as state:
        state.claim("one")
        with pytest.raises(UnusableState, match="is the state of pipeline 'one'; give 'two' another --state-dir"):
            state.claim("two")


def test_epochs_for_rows_that_are_read_again_come_only_once_and_far_apart(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        given = [state.new_epoch()]
        with State.beside(tmp_path) as other:
            given.append(other.new_epoch())
        given.append(state.new_epoch())
    assert given == [1_000_000, 2_000_000, 3_000_000]


def test_the_bytes_that_wait_are_known_without_counting_them_again(tmp_path: Path) -> None:
    def agreed() -> int:
        with looked(tmp_path) as fresh:
            assert state.waiting_bytes() == fresh.waiting_bytes()
        return state.waiting_bytes()

    with State.hold(tmp_path) as state:
        state.record(batch(1, "raw", "copy"))
        assert agreed() == 100
        state.record(batch(2, "raw", "copy"))
        state.record(batch(3, "raw"))
        assert agreed() == 300
        state.settle(must(next_parcel(state, "copy")), Receipt("x"))
        assert agreed() == 300
        state.settle(must(next_parcel(state, "raw")), Receipt("x"))
        assert agreed() == 200
        parts = [Share("raw", f"part{first}.parquet", 4, 30, "sha", (first, first + 4)) for first in (0, 4)]
        state.refuse(must(next_parcel(state, "raw")), [LETTER, LETTER], parts)
        assert agreed() == 260
        with pytest.raises(sqlite3.IntegrityError):
            state.record(batch(3, "copy", "raw"))
        assert agreed() == 260
        assert (state.awaits("raw"), state.awaits("copy"), state.awaits("other")) == (True, True, False)
        while parcel := next_parcel(state, "raw") or next_parcel(state, "copy"):
            state.settle(parcel, Receipt("x"))
        assert (agreed(), state.awaits("raw")) == (0, False)
