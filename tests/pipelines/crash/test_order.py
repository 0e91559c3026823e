"""The real program in strace: what is named or committed was synced before."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from crash import pipeline
from crash.order import commits, violations
from crash.trace import STRACE, Event, record

pytestmark = [
    pytest.mark.skipif(not STRACE, reason="strace is not installed; on Debian: apt-get install strace"),
    pytest.mark.slow,
]


def traced(folder: Path, sinks: tuple[str, ...], *patches: str) -> list[Event]:
    pipeline.make(folder, sinks)
    pipeline.grow(folder, 350)
    events = record(folder, ["run", "pipeline.yaml", "--once", "--finish"], patches)
    assert commits(events, folder) >= 8  # four batches, recorded and settled
    return events


@pytest.mark.parametrize("sinks", [("raw",), ("table",), ("archive",), ("raw", "sums", "cool", "hot")], ids="+".join)
def test_everything_is_synced_before_the_commit_that_relies_on_it(tmp_path: Path, sinks: tuple[str, ...]) -> None:
    assert violations(traced(tmp_path, sinks), tmp_path) == {}


def test_a_file_that_is_copied_to_another_file_system_is_synced_too(tmp_path: Path) -> None:
    events = traced(tmp_path, ("raw", "sums"), "links:off")
    assert any(event.kind in ("copy", "write") and event.path.endswith(".part") for event in events)
    assert violations(events, tmp_path) == {}


def test_a_folder_that_a_killed_run_made_is_synced_before_rows_rely_on_it(tmp_path: Path) -> None:
    (tmp_path / "lake" / "raw").mkdir(parents=True)
    events = traced(tmp_path, ("raw",))
    killed = [Event("mkdir", events[0].thread, str(path)) for path in (tmp_path / "lake", tmp_path / "lake" / "raw")]
    assert violations([*killed, *events], tmp_path) == {}


@pytest.mark.parametrize(
    ("sink", "patch", "rule"),
    [
        ("raw", "careless:files", "R1"),
        ("raw", "careless:folders", "R2 and R3: a name"),
        ("raw", "plant:no_rename", "R0"),
        ("archive", "careless:files", "R1"),
        ("archive", "careless:folders", "R2 and R3: a name"),
        ("table", "careless:delta", "R3: bytes"),
    ],
)
def test_what_is_not_synced_is_seen(tmp_path: Path, sink: str, patch: str, rule: str) -> None:
    assert violations(traced(tmp_path, (sink,), patch), tmp_path)[rule] > 0


def test_a_batch_for_one_parquet_sink_costs_five_syncs(tmp_path: Path) -> None:
    batches = 20
    pipeline.make(tmp_path, ("raw",))
    pipeline.grow(tmp_path, 100 * batches)
    events = record(tmp_path, ["run", "pipeline.yaml", "--once"])
    state = f"{tmp_path}/.lakeward/crash"
    syncs = Counter(event.path for event in events if event.kind == "sync")
    assert sum(count for path, count in syncs.items() if path.endswith(".tmp")) == batches
    assert syncs[f"{state}/spool"] == batches
    assert syncs[f"{tmp_path}/lake/raw"] == batches
    at_checkpoints = 2 * syncs[f"{state}/state.db"]
    assert syncs[f"{state}/state.db-wal"] - at_checkpoints <= 2 * batches + 2
