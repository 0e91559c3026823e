"""Plugins of others that break their contract: `check` and `run` say which one, and never that it was us."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
from attrs import define
from lakeward import Component, Encoding, hookimpl

LAKEWARD_API = (1, 0)


@hookimpl
def lakeward_components():
    kinds = {"transform": ["Bare", "Mute", "Empty", "Late", "Fine"], "sink": ["Deaf"]}
    return [Component(kind, name.lower(), f"other_plugin:{name}", "It breaks.") for kind, names in kinds.items() for name in names]


class Bare:
    ports, row_wise = ("main",), True
    def apply(self, batch): return batch


@define
class Mute:
    ports = ("main",)
    def apply(self, batch): return batch


@define
class Empty:
    ports, row_wise = ("main",), True
    def apply(self, batch): raise KeyError("boom")


@define
class Late:
    ports, row_wise = ("main",), True
    def apply(self, batch):
        if len(batch):
            raise KeyError("boom")
        return batch


@define
class Fine:
    ports, row_wise = ("main",), True
    def apply(self, batch): return batch


@define
class Deaf:
    encoding = Encoding()
"""
YAML = """name: p
source: {use: sqlite, path: sensor.db}
transforms:
  t: {use: TRANSFORM}
sinks: {out: {use: SINK, path: out}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    database = sqlite3.connect(tmp_path / "sensor.db")
    database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT)")
    database.execute("INSERT INTO readings VALUES (1, '2026-01-01T00:00:00Z')")
    database.commit()
    database.close()
    (tmp_path / "other_plugin.py").write_text(MODULE)
    about = tmp_path / "lakeward_other-2.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lakeward-other\nVersion: 2.1\n")
    (about / "entry_points.txt").write_text("[lakeward]\nother = other_plugin\n")
    return tmp_path


def lakeward(folder: Path, transform: str, sink: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "p.yaml").write_text(YAML.replace("TRANSFORM", transform).replace("SINK", sink))
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "lakeward", *arguments],
        cwd=folder, env=os.environ | {"PYTHONPATH": path, "TMPDIR": str(folder)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("transform", "sink", "problem"),
    [
        ("bare", "parquet", "p.yaml:4:12: transforms.t.use: other_plugin:Bare is a transform without @attrs.define"),
        ("mute", "parquet", "p.yaml:4:12: transforms.t.use: other_plugin:Mute is a transform without row_wise"),
        ("fine", "deaf", "p.yaml:5:20: sinks.out.use: other_plugin:Deaf is a sink without deliver, close"),
    ],
)
def test_a_class_without_what_its_contract_names_is_told_at_its_use(folder: Path, transform: str, sink: str, problem: str) -> None:
    ran = lakeward(folder, transform, sink, "check", "p.yaml")
    assert (ran.returncode, ran.stderr) == (2, f"{problem}; report it to the author of the plugin\n")


@pytest.mark.parametrize(("transform", "arguments"), [("empty", ["check", "p.yaml"]), ("late", ["run", "p.yaml", "--once"])])
def test_an_exception_is_a_bug_of_its_plugin_and_the_traceback_is_kept(folder: Path, transform: str, arguments: list[str]) -> None:
    ran = lakeward(folder, transform, "parquet", *arguments)
    assert ran.returncode == 70
    assert re.search(r"^lakeward: this is a bug of lakeward-other 2.1 \(other_plugin.py:\d+\): KeyError: 'boom'$", ran.stderr, re.MULTILINE)
    assert "Traceback" not in ran.stderr
    (log,) = folder.glob("lakeward-bug-*.log")
    assert log.name in ran.stderr
    assert "KeyError: 'boom'" in log.read_text()
    assert not (folder / "out").exists()
