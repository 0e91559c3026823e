"""EMG-4 on the real program: killed again and again, it gives the alerts that it gives when left alone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

PIPELINE = """
name: alerts
source: {use: sqlite, path: readings.db}
transforms:
  watch:
    use: emergency
    trigger_keywords: [ALERT]
    severity_thresholds: {v: {Minor: 35, Severe: 38, deadband: 1, on_delay_s: 3, off_delay_s: 5}}
    rules:
      - {id: rise, kind: rate, field: v, per_s: 0.8}
      - {id: silent, kind: stale, after_s: 40}
      - {id: two, kind: quorum, of: v_high, k: 2, window_s: 30}
    flood: {start: 3, end: 2, window_s: 60}
sinks:
  alerts: {use: parquet, path: lake/alerts}
batch: {rows: 50, wait: 10ms}
"""
RUN = [sys.executable, "-m", "lakeward", "run", "p.yaml"]


def folder(path: Path) -> Path:
    path.mkdir()
    (path / "p.yaml").write_text(PIPELINE)
    database = sqlite3.connect(path / "readings.db")
    database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp INTEGER, sensor_id TEXT, v REAL, message TEXT)")
    rows = [
        (1_700_000_000 + second, f"s{second % 7}", (30.0, 36.0, 39.0)[second // 20 % 3], "ALERT" if second % 97 == 0 else None)
        for second in range(2000)
        if second % 500 > 60 or second % 7
    ]
    database.executemany("INSERT INTO readings VALUES (NULL, ?, ?, ?, ?)", rows)
    database.commit()
    database.close()
    return path


def alerts(path: Path) -> list[str]:
    return sorted(str(row) for file in (path / "lake" / "alerts").rglob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist())


@pytest.mark.slow
@pytest.mark.one_python
def test_emg_04_killed_runs_give_every_alert_once(tmp_path: Path) -> None:
    alone, killed = folder(tmp_path / "alone"), folder(tmp_path / "killed")
    subprocess.run([*RUN, "--once"], cwd=alone, check=True, capture_output=True)
    for files in (3, 12, 24):
        process = subprocess.Popen(RUN, cwd=killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        patience = time.monotonic() + 60
        while len(list((killed / "lake" / "alerts").rglob("*.parquet"))) < files and time.monotonic() < patience:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert time.monotonic() < patience, "nothing was delivered"
    before = len(alerts(killed))
    subprocess.run([*RUN, "--once"], cwd=killed, check=True, capture_output=True)
    assert 0 < before < len(alerts(alone))
    assert alerts(killed) == alerts(alone)
    kinds = {
        name
        for name in ("keyword", "v_high", "rise", "silent", "two", "ALARM_FLOOD", "UPDATE")
        if any(name in row for row in alerts(alone))
    }
    assert len(kinds) == 7, f"the rows bring about {kinds} only"
