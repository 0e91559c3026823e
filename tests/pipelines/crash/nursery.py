"""A process that has imported the program and forks it on demand, because start-up is nine tenths of a short life.

One JSON object a line: {"start": [ARGUMENT...], "folder": F, "patches": [...], "more": {NAME: VALUE...}} is answered with the child's
pid, {"wait": PID, "seconds": S} with its exit status, negative for a signal, or null when it still runs. When standard input ends, so
do all children.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

MODULES = (
    "lakeward.cli.run", "lakeward.cli.report", "lakeward.config", "lakeward.pipeline", "lakeward.plugins", "lakeward.run", "lakeward.state",
    "lakeward_plugins.sources.sqlite", "lakeward_plugins.transforms.window", "lakeward_plugins.transforms.physics_validation",
    "crash.planted", "pyarrow.compute", "pyarrow.parquet",
)  # fmt: skip


def main() -> None:
    for module in MODULES:
        import_module(module)
    children: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            child = _fork(order)
            children.add(child)
            answer: int | None = child
        else:
            answer = _wait(order["wait"], order["seconds"])
            children -= {order["wait"]} if answer is not None else set()
        print(json.dumps(answer), flush=True)
    for child in children:
        os.kill(child, signal.SIGKILL)


def _import_sinks(file: Path) -> None:
    """Those that the pipeline uses, and what they load when they need it; they are here by the second time."""
    text = file.read_text()
    modules = [f"lakeward_plugins.sinks.{use}" for use in re.findall(r"use: (\w+)", text)]
    for module in (*filter(find_spec, modules), *(["boto3.session"] if "s3://" in text else [])):
        import_module(module)


def _fork(order: dict[str, Any]) -> int:
    _import_sinks(Path(order["folder"]) / "pipeline.yaml")
    pid = os.fork()
    return pid if pid else _live(order)


def _live(order: dict[str, Any]) -> NoReturn:
    from crash.patched import apply, main

    try:
        os.chdir(order["folder"])
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for ours, standard in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(ours, standard)
        os.environ.update(order["more"])
        apply(order["patches"])
        main(order["start"])
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:  # noqa: BLE001  # this process ends here, and tells the log why
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(99)


def _wait(pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.002)


if __name__ == "__main__":
    main()
