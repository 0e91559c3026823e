"""Start the real program in a folder, kill it, and see how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

PACKAGES = Path(__file__).parents[1], Path(__file__).parents[2] / "servers"
PATIENCE = 120.0
"""Seconds after which a run that should end by itself is stuck."""


class Broken(AssertionError):
    """The program ended as it never should."""


class Life(Protocol):
    """A started program."""

    @property
    def pid(self) -> int: ...

    def wait(self, seconds: float) -> int | None:
        """Its exit status, negative for a signal; None when it still runs."""


def environment() -> dict[str, str]:
    """For processes that must find these modules."""
    paths = [*map(str, PACKAGES), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


class Nursery:
    """Forks the program from a process that has imported it already."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "crash.nursery"]
        self._process = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **order: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, folder: Path, arguments: Sequence[str], patches: Sequence[str] = (), **more: str) -> Life:
        """Of a pipeline in `pipeline.yaml`; `more` is its environment."""
        return Forked(self, self.ask(start=list(arguments), folder=str(folder), patches=list(patches), more=more))

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@frozen
class Forked:
    nursery: Nursery
    pid: int

    def wait(self, seconds: float) -> int | None:
        status: int | None = self.nursery.ask(wait=self.pid, seconds=seconds)
        return status


@frozen
class Started:
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


@frozen
class Over:
    status: int
    pid: int = 0

    def wait(self, seconds: float) -> int | None:
        return self.status


def start(folder: Path, arguments: Sequence[str], prefix: Sequence[str] = (), patches: Sequence[str] = (), **more: str) -> Life:
    """As people do: a new interpreter; `prefix` is a program that starts it, such as strace, and `more` is its environment."""
    module = ["crash.patched", *patches, "--"] if patches else ["lakeward"]
    command = [*prefix, sys.executable, "-m", *module, *arguments]
    with (folder / "log.txt").open("ab") as log:
        return Started(subprocess.Popen(command, cwd=folder, env=environment() | more, stdin=subprocess.DEVNULL, stdout=log, stderr=log))


def kill(life: Life) -> int:
    """End it at once, if it has not ended by itself."""
    status = life.wait(0)
    if status is None:
        os.kill(life.pid, signal.SIGKILL)
        status = life.wait(PATIENCE)
        assert status is not None
    return status


def ended(folder: Path, life: Life, *allowed: int) -> int:
    """Wait until it ends by itself. Raises Broken when it ends in another way than allowed, with the end of its log."""
    status = life.wait(PATIENCE)
    if status is None:
        kill(life)
    log = (folder / "log.txt").read_text(errors="replace") if (folder / "log.txt").exists() else ""
    if status not in (allowed or (0,)) or "Traceback" in log:
        raise Broken(f"{folder}: ended with {'no status: it is stuck' if status is None else status}: {log[-1500:]}")
    return status
