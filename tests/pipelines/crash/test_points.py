"""Kill -9 at every named point of the data flow; then every row arrives once, and one run more changes nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import duckdb
import pytest

from crash import pipeline
from crash.oracle import judge, photograph
from crash.points import POINTS
from crash.program import Nursery, ended

SINKS = ("raw", "sums", "cool", "hot", "documents")
FINISH = ("run", "pipeline.yaml", "--once", "--finish")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pipeline.make(tmp_path, SINKS)
    pipeline.grow(tmp_path, 350, bad=(50, 251))
    return tmp_path


@pytest.mark.parametrize("visit", [1, 3])
@pytest.mark.parametrize("point", POINTS)
def test_every_row_arrives_once_after_kill_9(nursery: Nursery, folder: Path, point: str, visit: int) -> None:
    life = nursery.start(folder, ["run", "pipeline.yaml", "--once"], [f"die:{point}:{visit}"])
    ended(folder, life, -signal.SIGKILL)
    pipeline.grow(folder, 150)
    ended(folder, nursery.start(folder, FINISH))
    verdict = judge(folder, SINKS)
    assert (verdict.rows, dict(verdict.faults)) == (498, {}), verdict
    before = photograph(folder)
    ended(folder, nursery.start(folder, FINISH))
    assert photograph(folder) == before


def test_the_oracle_sees_each_kind_of_fault_in_each_kind_of_sink(nursery: Nursery, folder: Path) -> None:
    ended(folder, nursery.start(folder, FINISH))
    assert not judge(folder, SINKS).faults
    pipeline.grow(folder, 1)
    assert {kind for _, kind in judge(folder, SINKS).faults} == {"lost", "wrong"}  # wrong: the sum of its window
    ended(folder, nursery.start(folder, ("run", "pipeline.yaml", "--once")))

    raw = sorted((folder / "lake" / "raw").glob("*.parquet"))
    (raw[0].parent / "again.parquet").write_bytes(raw[0].read_bytes())
    assert judge(folder, ("raw",)).faults == {("raw", "twice"): 99}
    other = f"SELECT id, timestamp, sensor_id, temperature + (id = 7)::int AS temperature FROM '{raw[0]}'"
    duckdb.sql(f"COPY ({other}) TO '{raw[0].parent}/again.parquet'")
    raw[0].unlink()
    assert judge(folder, ("raw",)).faults == {("raw", "wrong"): 1}
    raw[1].write_bytes(raw[1].read_bytes()[:-100])
    assert judge(folder, ("raw",)).faults == {("raw", "unreadable"): 1}
