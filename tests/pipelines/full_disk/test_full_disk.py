"""A volume that is filled and freed at random under the running program, which is killed now and then as well.

`LAKEWARD_FULL_DISK_SECONDS=600` makes a long story of each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("LAKEWARD_FULL_DISK_SECONDS", "15"))
LONG = SECONDS > 15
NAMESPACE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]


def may_mount() -> bool:
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "-o", "size=6m", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not may_mount(), reason="no volume may be mounted here, not even in a namespace of its own")


def test_what_waits_is_delivered_and_removed_on_a_disk_without_a_free_byte(tmp_path: Path) -> None:
    story = [sys.executable, str(Path(__file__).with_name("full_disk.py")), str(tmp_path), "to-the-last-byte"]
    told = subprocess.run([*NAMESPACE, *story], capture_output=True, text=True, timeout=300, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads(told.stdout)
    log = found.pop("log")
    assert found == {"refused": 1, "recovered": True, "waiting": [], "stopped": 143, "last": 0, "wrong": []}, log
    # the state cannot even be opened; what waited may be gone again, and room there, before anything is read
    assert "the run begins as soon as there is room" in log or "WARNING disk: the disk of the state is full" in log
    assert "Traceback" not in log


@pytest.mark.slow
@pytest.mark.one_python
@pytest.mark.parametrize(("megabytes", "seed"), [(6, 1), (8, 2), (32, 3)])
def test_every_row_arrives_once_although_the_disk_is_full_again_and_again(tmp_path: Path, megabytes: int, seed: int) -> None:
    near = ["near"] if LONG and megabytes == 32 else []  # a sink on the same volume, which may pause for a minute by itself
    story = [sys.executable, str(Path(__file__).with_name("full_disk.py")), str(tmp_path), str(megabytes), str(SECONDS), str(seed), *near]
    told = subprocess.run([*NAMESPACE, *story], capture_output=True, text=True, timeout=SECONDS + 400, check=False)
    print(told.stdout)
    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads(told.stdout)
    assert found["problems"] == []
    assert found["rows"] > 1000
    assert found["fills"] > 3
