"""With no extra installed: every plugin is still listed, none breaks the rest, and what is missing is one line."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

YAML = "name: small\nsource: {use: sqlite, path: sensor.db}\nsinks: {out: {use: SINK, path: out}}\n"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("deltalake") is not None, reason="deltalake is installed here; the tox environment `kernel` is without extras"
)


def lakeward(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lakeward", *arguments]
    return subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    database = sqlite3.connect(tmp_path / "sensor.db")
    database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT)")
    database.execute("INSERT INTO readings VALUES (1, '2026-01-01')")
    database.commit()
    database.close()
    return tmp_path


def test_every_component_is_listed(tmp_path: Path) -> None:
    listed = json.loads(lakeward(tmp_path, "plugins", "list", "--json").stdout)
    assert "delta" in {one["name"] for one in listed}
    assert not [one for one in listed if one["kind"].startswith("[")]


def test_a_pipeline_without_the_missing_extra_runs(folder: Path) -> None:
    (folder / "p.yaml").write_text(YAML.replace("SINK", "parquet"))
    ran = lakeward(folder, "run", "p.yaml", "--once")
    assert ran.returncode == 0, ran.stderr
    assert len(list((folder / "out").glob("*.parquet"))) == 1


def test_a_missing_extra_is_one_line_that_says_what_to_install(folder: Path) -> None:
    (folder / "p.yaml").write_text(YAML.replace("SINK", "delta"))
    ran = lakeward(folder, "run", "p.yaml", "--once")
    assert ran.returncode == 2
    assert ran.stderr.startswith("p.yaml:3:20: sinks.out.use: sink 'delta' of lakeward ")
    assert "pip install 'lakeward[delta]'" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
