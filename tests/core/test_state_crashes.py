"""The state through kills, full disks, rivals and every order of steps."""

from __future__ import annotations

import os
import signal
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
from lakeward.recording import Recording, Share
from lakeward.state import State
from lakeward.statefile import Checkpoint

SPOOL = Path("/spool")


def batch(sequence: int, *sinks: str, rows: int = 10, **changes: Any) -> Recording:
    """A batch whose sinks share one file of 100 bytes."""
    shares = [Share(sink, f"f{sequence}.parquet", rows, 100, f"sha{sequence}") for sink in sinks]
    return evolve(Recording(sequence, 0, {"row": sequence}, {}, shares, [], {("rows", "read"): rows}), **changes)


def next_parcel(state: State, sink: str) -> Parcel | None:
    return state.next_parcel(sink, "pipe", SPOOL)


@contextmanager
def looked(directory: Path) -> Iterator[State]:
    with State.look(directory) as state:
        assert state is not None
        yield state


def in_another_process(directory: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    head = """
        import os, signal, sys
        from pathlib import Path
        from lakeward.recording import Recording, Share
        from lakeward.state import State
        directory = Path(sys.argv[1])
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, "-c", code, str(directory), *arguments], env=environment, stdout=subprocess.PIPE, text=True)


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
        assert (state.transform_state("w"), state.waiting(), set(state.checksums())) == (b"old", {"a": (1, 10)}, {"f1.parquet"})
        state.record(batch(2, "a"))


@pytest.mark.parametrize("size", [300_000, 5_000_000])  # written at COMMIT, and before it because it does not fit the cache
def test_when_the_disk_fills_up_nothing_changes_and_it_goes_on_when_there_is_room(tmp_path: Path, size: int) -> None:
    child = in_another_process(
        tmp_path,
        """
        import resource
        from lakeward.errors import NoRoom
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
                except NoRoom as error:
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
        assert set(state.checksums()) == set()


def _deliver(state: State, sink: str, parcels: int) -> None:
    while parcels:
        parcel = next_parcel(state, sink)
        if parcel:
            state.settle(parcel, Receipt("x"))
            parcels -= 1


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
            assert set(state.checksums()) == {f"f{number}.parquet" for numbers in waiting.values() for number in numbers}
            assert state.totals() == totals
            assert (checkpoint.sequence if (checkpoint := state.checkpoint()) else 0) == sequence
    finally:
        stack.__exit__(None, None, None)
