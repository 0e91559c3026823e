"""SIGTERM and SIGINT to the real program, whatever it has in hand."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import pytest

import commands
from commands import ended, lakeward, until, write_readings

MODULE = """
import socket
import sqlite3
from attrs import define
from lakeward import Component, Encoding, Retry, hookimpl

LAKEWARD_API = (1, 0)
ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@hookimpl
def lakeward_components():
    return [
        Component("transform", "busy", "stuck_plugin:Busy", "Is busy inside C for ever."),
        Component("sink", "hanging", "stuck_plugin:Hanging", "Waits for an answer for ever."),
        Component("sink", "away", "stuck_plugin:Away", "Can be asked again in a minute."),
    ]


@define
class Busy:
    ports, row_wise = ("main",), True
    def apply(self, batch):
        if len(batch):
            print("in hand", flush=True)
            sqlite3.connect(":memory:").execute(ENDLESS)
        return batch


@define
class Hanging:
    encoding = Encoding()
    def deliver(self, parcel):
        one, other = socket.socketpair()
        print("in hand", flush=True)
        one.recv(1)
    def close(self):
        pass
@define
class Away:
    encoding = Encoding()
    def deliver(self, parcel):
        print("in hand", flush=True)
        raise Retry("nobody is there", after=60)
    def close(self):
        pass
"""
LIMIT = 8.0  # seconds from the signal to the end
SLOW = 4.0  # more, on a machine that does other things


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_readings(tmp_path, 5_000)
    (tmp_path / "stuck_plugin.py").write_text(MODULE)
    info = tmp_path / "stuck_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stuck-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lakeward]\nstuck = stuck_plugin\n")
    return tmp_path


def write_pipeline(folder: Path, name: str, *, transform: str = "", sink: str = "", source: str = "", batch: int = 100_000) -> None:
    sink = sink or f"{{use: parquet, path: lake/{name}}}"
    (folder / f"{name}.yaml").write_text(
        f"name: {name}\nsource: {{use: sqlite, path: sensor.db{source}}}\n"
        f"{transform and f'transforms: {{t: {{use: {transform}}}}}'}\nsinks: {{out: {sink}}}\nbatch: {{rows: {batch}, wait: 50ms}}\n"
    )


def start(folder: Path, name: str, file_size: int = resource.RLIM_INFINITY) -> subprocess.Popen[str]:
    paths = os.pathsep.join(filter(None, [str(folder), *sys.path]))
    with (folder / f"{name}.out").open("w") as out, (folder / f"{name}.err").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "lakeward", "run", f"{name}.yaml"], cwd=folder, env={**os.environ, "PYTHONPATH": paths}, text=True,
            stdout=out, stderr=errors, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY)),
        )  # fmt: skip


@contextmanager
def killed_at_last(*running: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait(20)


def said(folder: Path, name: str, words: str, stream: str = "err") -> Callable[[], bool]:
    return lambda: words in (folder / f"{name}.{stream}").read_text()


def test_the_process_ends_in_time_in_every_situation(folder: Path) -> None:
    write_pipeline(folder, "transform", transform="busy")
    write_pipeline(folder, "sink", sink="{use: hanging}")
    write_pipeline(folder, "full")
    (folder / "file").touch()
    write_pipeline(folder, "refused", sink="{use: parquet, path: file}")
    (folder / "absent").mkdir()
    write_pipeline(folder, "idle")
    running = {name: start(folder, name) for name in ("transform", "sink", "refused", "idle")}
    running["full"] = start(folder, "full", file_size=100_000)
    with killed_at_last(*running.values()):
        until(said(folder, "transform", "in hand", "out"))
        until(said(folder, "sink", "in hand", "out"))
        until(said(folder, "full", "reading goes on by itself"))
        until(said(folder, "refused", "is not a folder"))
        until(lambda: any((folder / "lake" / "idle").glob("*.parquet")))
        with closing(sqlite3.connect(folder / "sensor.db")) as sensor:
            sensor.execute("BEGIN EXCLUSIVE")
            write_pipeline(folder, "locked", source=", busy_timeout: 1h")
            running["locked"] = start(folder, "locked")
            time.sleep(3)  # it says nothing while it waits
            for one in running.values():
                assert one.poll() is None
                one.send_signal(signal.SIGTERM)
            began, ended = time.monotonic(), {}
            while len(ended) < len(running) and time.monotonic() < began + LIMIT + SLOW:
                for name, one in running.items():
                    if one.poll() is not None:
                        ended.setdefault(name, time.monotonic() - began)
                time.sleep(0.05)
    print(ended)
    assert {name: one.returncode for name, one in running.items()} == dict.fromkeys(running, 143)
    at_once = [ended[name] for name in ("full", "refused", "locked")]
    assert max(at_once) < LIMIT - 1, "nothing was in hand"
    assert "Traceback" not in "".join(path.read_text() for path in folder.glob("*.err"))
    assert "7.0 s" not in (folder / "idle.err").read_text()


def test_the_second_signal_ends_at_once_although_a_sink_hangs(folder: Path) -> None:
    write_pipeline(folder, "sink", sink="{use: hanging}")
    running = start(folder, "sink")
    with killed_at_last(running):
        until(said(folder, "sink", "in hand", "out"))
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert time.monotonic() - began < LIMIT - 2


@pytest.mark.slow
@pytest.mark.parametrize("sink", ["hanging", "away"])
def test_a_replay_that_is_told_to_stop_ends_with_143_and_its_row_waits(folder: Path, sink: str) -> None:
    with closing(sqlite3.connect(folder / "sensor.db")) as database, database:
        database.execute("INSERT INTO readings (timestamp, temperature) VALUES ('2026-01-01T00:00:00Z', 'n/a')")
    write_pipeline(folder, "demo")
    lakeward(folder, "run", "demo.yaml", "--once")
    write_pipeline(folder, "demo", sink=f"{{use: {sink}}}", source=", types: {temperature: text}")
    paths = os.pathsep.join(filter(None, [str(folder), *sys.path]))
    replay = commands.start(folder, "dead-letters", "replay", "demo.yaml", "--all", PYTHONPATH=paths)
    with killed_at_last(replay):
        assert replay.stdout
        assert replay.stdout.readline() == "in hand\n"
        replay.send_signal(signal.SIGTERM)
        ended(replay, 143)
    status = json.loads(lakeward(folder, "status", "demo.yaml", "--json").stdout)
    assert (status["rows"]["dead"], status["sinks"]["out"]["waiting"], status["dead_letters"]) == (0, 1, [])


@pytest.mark.slow
def test_at_any_moment_what_is_recorded_is_safe(folder: Path) -> None:
    many = int(os.environ.get("LAKEWARD_SIGNALS", "15"))
    write_pipeline(folder, "demo", batch=50)
    dice = random.Random(8)
    for number in range(many):
        write_readings(folder, 200)
        running = start(folder, "demo")
        with killed_at_last(running):
            if number % 3:
                until(said(folder, "demo", "started"))
                time.sleep(dice.uniform(0.0, 0.6))
            else:
                time.sleep(dice.uniform(0.0, 2.0))
            began, signalled = time.monotonic(), dice.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGINT])
            running.send_signal(signalled)
            code = running.wait(LIMIT + SLOW)
        assert code in (128 + signalled, -signalled), (folder / "demo.err").read_text()  # the latter before lakeward listens
        assert time.monotonic() - began < LIMIT + SLOW
    last = lakeward(folder, "run", "demo.yaml", "--once", "--json")
    assert json.loads(last.stdout)["rows"]["read"] == 5_000 + 200 * many
    ids = duckdb.sql(f"SELECT count(*), count(DISTINCT id) FROM '{folder}/lake/demo/*.parquet'").fetchall()
    assert ids == [(5_000 + 200 * many, 5_000 + 200 * many)]
