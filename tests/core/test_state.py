from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward.components import Parcel, Receipt
from lakeward.errors import StateInUse
from lakeward.state import Checkpoint, DeadLetter, Recording, Share, State
from lakeward.statefile import UnusableState

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


def in_another_process(directory: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    head = """
        import os, signal, sys
        from pathlib import Path
        from lakeward.state import Recording, Share, State
        directory = Path(sys.argv[1])
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, "-c", code, str(directory), *arguments], env=environment, stdout=subprocess.PIPE, text=True)


# -- what is recorded is there again -----------------------------------------------------------------------------------


def test_a_new_state_is_empty(tmp_path: Path) -> None:
    with State.hold(tmp_path / "a" / "b") as state:
        assert (state.checkpoint(), state.transform_state("x"), next_parcel(state, "x")) == (None, None, None)
        assert (state.waiting(), state.waiting_bytes(), state.spooled_files(), state.totals()) == ({}, 0, set(), {})
        assert (state.receipts(), state.dead_letters(), state.dead_letter_counts()) == ([], [], {})


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
        assert state.dead_letter_counts() == {("source", "utf8"): 1}


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
        assert state.spooled_files() == set()


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
        newest, _, oldest = state.dead_letters()
        assert (newest["stage"], newest["row_low"], newest["row_high"], newest["detail"]) == ("sink a", 1, 3, "x" * 500)
        assert (oldest["stage"], oldest["row_low"], oldest["row_high"], oldest["payload"], oldest["status"]) == (
            "source",
            7,
            None,
            '{"a": 1}',
            "open",
        )
        assert [letter["id"] for letter in state.dead_letters(limit=2)] == [3, 2]
        assert state.dead_letter_counts() == {("sink a", "sink_rejected"): 2, ("source", "utf8"): 1}
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
        assert state.dead_letters() == []
        state.record(batch(2, "a"))


# -- crashes and full disks --------------------------------------------------------------------------------------------


def test_a_kill_before_the_commit_leaves_the_old_state(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        state.record(batch(1, "a", states={"w": b"old"}))
    child = in_another_process(
        tmp_path,
        """
        class Deadly(dict):
            def items(self):  # totals are the last thing that is written before COMMIT
                os.kill(os.getpid(), signal.SIGKILL)
        with State.hold(directory) as state:
            state.record(Recording(2, 5, {"row": 2}, {"w": b"new"}, [Share("a", "f2", 1, 1, "x")], [], Deadly()))
        """,
    )
    assert child.communicate() == ("", None)
    assert child.returncode == -signal.SIGKILL
    with State.hold(tmp_path) as state:
        assert state.checkpoint() == Checkpoint({"row": 1}, 0, 1)
        assert (state.transform_state("w"), state.waiting(), state.spooled_files()) == (b"old", {"a": (1, 10)}, {"f1.parquet"})
        state.record(batch(2, "a"))


@pytest.mark.parametrize("size", [300_000, 5_000_000])  # written at COMMIT, and before it because it does not fit the cache
def test_when_the_disk_fills_up_nothing_changes_and_it_goes_on_when_there_is_room(tmp_path: Path, size: int) -> None:
    child = in_another_process(
        tmp_path,
        """
        import resource
        from lakeward.statefile import UnusableState
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        def batch(sequence):
            share = Share("a", f"f{sequence}", 1, 1, "x")
            return Recording(sequence, 0, {"row": sequence}, {"w": bytes(int(sys.argv[2]))}, [share], [], {})
        with State.hold(directory) as state:
            state.record(batch(1))
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            for attempt in range(2):
                try:
                    state.record(batch(2))
                except UnusableState as error:
                    print(error, state.checkpoint().sequence, flush=True)
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            state.record(batch(2))
            print(state.checkpoint().sequence)
        """,
        str(size),
    )
    out, _ = child.communicate()
    failures = out.splitlines()
    assert len(failures) == 3, out
    assert all(line.endswith(" 1") and "transaction" not in line for line in failures[:2]), out
    assert failures[2] == "2"
    with looked(tmp_path) as state:
        assert state.waiting() == {"a": (2, 2)}


# -- one holder --------------------------------------------------------------------------------------------------------


def test_a_second_holder_is_told_who_is_first(tmp_path: Path) -> None:
    with State.hold(tmp_path), pytest.raises(StateInUse, match=rf"^{tmp_path}: .*process {os.getpid()}\)"), State.hold(tmp_path):
        pass
    with State.hold(tmp_path):
        pass


def test_a_state_is_of_one_pipeline_for_ever(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        state.claim("one")
    with State.hold(tmp_path) as state:
        state.claim("one")
        with pytest.raises(UnusableState, match="is the state of pipeline 'one'; give 'two' another --state-dir"):
            state.claim("two")


def test_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    child = in_another_process(tmp_path, "with State.hold(directory): print('held', flush=True); signal.pause()")
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(StateInUse, match=f"process {child.pid}"), State.hold(tmp_path):
            pass
    finally:
        child.kill()
        child.communicate()
    with State.hold(tmp_path):
        pass


def test_threads_share_a_state(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        threads = [threading.Thread(target=_deliver, args=(state, sink, 15)) for sink in "abc"]
        for thread in threads:
            thread.start()
        for sequence in range(15):
            state.record(batch(sequence, "a", "b", "c"))
        for thread in threads:
            thread.join(20)
        assert state.totals() == {"rows": {"read": 150}, "delivered": {"a": 150, "b": 150, "c": 150}}
        assert state.spooled_files() == set()


def _deliver(state: State, sink: str, parcels: int) -> None:
    while parcels:
        parcel = next_parcel(state, sink)
        if parcel:
            state.settle(parcel, Receipt("x"))
            parcels -= 1


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


def test_looking_after_a_crash_sees_what_was_recorded(tmp_path: Path) -> None:
    script = """
        with State.hold(directory) as state:
            state.record(Recording(1, 0, {"row": 1}, {}, [], [], {}))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    in_another_process(tmp_path, script).communicate()
    assert (tmp_path / "state.db-wal").stat().st_size > 0
    with looked(tmp_path) as seen:
        assert seen.checkpoint() == Checkpoint({"row": 1}, 0, 1)


def test_looking_works_while_held_and_never_writes(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        state.record(batch(1, "a"))
        with looked(tmp_path) as seen:
            assert (seen.life, seen.checkpoint(), seen.waiting()) == (state.life, state.checkpoint(), {"a": (1, 10)})
            state.record(batch(2, "a"))
            assert seen.waiting() == {"a": (2, 20)}
            with pytest.raises(UnusableState, match=r"readonly.*right to read and write"):
                seen.record(batch(3, "a"))


# -- states that cannot be used ----------------------------------------------------------------------------------------


def _newer(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 2")
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
    "newer": (_newer, "made by a newer lakeward .state schema 2, this one knows 1.; upgrade lakeward"),
    "garbage": (lambda file: file.write_bytes(b"garbage" * 1000), "file is not a database; start anew with another --state-dir"),
    "torn": (_torn, "malformed.*; start anew with another --state-dir"),
    "another program's": (_foreign, "no such table: about; start anew with another --state-dir"),
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


def test_every_commit_is_synced(tmp_path: Path) -> None:
    with State.hold(tmp_path) as state:
        ask = state._connection.execute  # synchronous is a property of the connection that writes
        assert ask("PRAGMA synchronous").fetchone() == (2,)
        assert ask("PRAGMA journal_mode").fetchone() == ("wal",)


# -- against a plain model ---------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.frozensets(st.sampled_from("abc")) | st.sampled_from(["settle a", "settle b", "settle c", "refuse b", "restart"]), max_size=20
)


@given(STEPS)
@settings(max_examples=25, deadline=None)
def test_any_order_of_recording_and_settling_is_as_in_a_plain_model(
    tmp_path_factory: pytest.TempPathFactory, steps: list[frozenset[str] | str]
) -> None:
    directory = tmp_path_factory.mktemp("state")
    waiting: dict[str, list[int]] = {sink: [] for sink in "abc"}
    totals: defaultdict[str, dict[str, int]] = defaultdict(dict)
    sequence = 0
    stack = State.hold(directory)
    state = stack.__enter__()
    try:
        for step in steps:
            if isinstance(step, frozenset):
                sequence += 1
                state.record(batch(sequence, *sorted(step)))
                totals["rows"]["read"] = 10 * sequence
                for sink in step:
                    waiting[sink].append(sequence)
            elif step == "restart":
                stack.__exit__(None, None, None)
                stack = State.hold(directory)
                state = stack.__enter__()
            elif parcel := next_parcel(state, step[-1]):
                kind, sink = ("delivered" if step.startswith("settle") else "refused"), step[-1]
                number = waiting[sink].pop(0)
                assert (parcel.token.sequence, parcel.rows, parcel.path.name) == (number, 10, f"f{number}.parquet")
                last = state.settle(parcel, Receipt("x")) if kind == "delivered" else state.refuse(parcel, [])
                assert last == all(number not in numbers for numbers in waiting.values())
                totals[kind][sink] = totals[kind].get(sink, 0) + 10
            assert state.waiting() == {sink: (len(numbers), 10 * len(numbers)) for sink, numbers in waiting.items() if numbers}
            assert state.spooled_files() == {f"f{number}.parquet" for numbers in waiting.values() for number in numbers}
            assert state.totals() == totals
            assert (checkpoint.sequence if (checkpoint := state.checkpoint()) else 0) == sequence
    finally:
        stack.__exit__(None, None, None)
