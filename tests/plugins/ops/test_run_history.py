import json
import logging
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pluggy
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import hookimpl, hookspecs
from lakeward.hookspecs import RunInfo, RunResult
from lakeward.testing import PluginContract
from lakeward_plugins.ops import run_history
from lakeward_plugins.ops.run_history import MAX_BYTES, history, read_history

STARTED = datetime(2025, 1, 1, 12, tzinfo=UTC)


class TestRunHistoryContract(PluginContract):
    module = "lakeward_plugins.ops.run_history"


def info(directory: Path, number: int = 1) -> RunInfo:
    return RunInfo(f"run{number}", "demo", directory / "demo.yaml", directory, STARTED + timedelta(minutes=number))


def start(directory: Path, number: int = 1) -> None:
    run_history.lakeward_run_started(info(directory, number))


def finish(directory: Path, number: int = 1, status: Any = "done", error: str = "", seconds: float = 1.5) -> None:
    end = STARTED + timedelta(minutes=number, seconds=seconds)
    run_history.lakeward_run_finished(info(directory, number), RunResult(status, end, 1000, 3, 2, {"raw": 995}, error))


def file_of(directory: Path) -> Path:
    return directory / "history.jsonl"


def shown(directory: Path, *arguments: str) -> str:
    done = CliRunner().invoke(history, ["demo.yaml", "--state-dir", str(directory), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def statuses(directory: Path) -> list[str]:
    return [run["status"] for run in read_history(directory)]


def test_a_finished_run_is_one_entry(tmp_path: Path) -> None:
    start(tmp_path)
    finish(tmp_path)
    assert read_history(tmp_path) == [
        {
            "run": "run1", "started": "2025-01-01T12:01:00+00:00", "finished": "2025-01-01T12:01:01.500000+00:00", "seconds": 1.5,
            "status": "done", "read": 1000, "delivered": {"raw": 995}, "filtered": 2, "dead": 3, "error": "",
        }
    ]  # fmt: skip


def test_a_run_without_an_end_is_running_while_its_process_lives(tmp_path: Path) -> None:
    start(tmp_path)
    assert statuses(tmp_path) == ["running"]


def test_a_run_whose_process_was_killed_is_killed(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from datetime import UTC, datetime
from lakeward.hookspecs import RunInfo
from lakeward_plugins.ops import run_history
directory = Path(sys.argv[1])
run_history.lakeward_run_started(RunInfo("gone", "demo", directory / "demo.yaml", directory, datetime.now(UTC)))
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), *filter(None, sys.path)])
    if Path("/proc/self/stat").exists():  # while nobody has asked how it ended, it is still in the process table
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert statuses(tmp_path) == ["killed"]
    assert process.wait() == -9
    assert statuses(tmp_path) == ["killed"]


def test_a_process_id_that_was_given_to_another_process_does_not_look_alive(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("this system does not tell when a process started")
    start(tmp_path)
    line = json.loads(file_of(tmp_path).read_text())
    file_of(tmp_path).write_text(json.dumps({**line, "born": str(int(line["born"]) - 1)}) + "\n")
    assert line["pid"] == os.getpid()
    assert statuses(tmp_path) == ["killed"]


def test_a_run_that_a_later_one_followed_was_killed(tmp_path: Path) -> None:
    start(tmp_path, 1)
    start(tmp_path, 2)
    assert statuses(tmp_path) == ["killed", "running"]


def test_a_run_of_another_machine_is_unknown_until_it_ends(tmp_path: Path) -> None:
    start(tmp_path)
    file_of(tmp_path).write_text(file_of(tmp_path).read_text().replace(json.dumps(platform.node()), '"elsewhere"'))
    assert statuses(tmp_path) == ["unknown"]
    finish(tmp_path)
    assert statuses(tmp_path) == ["done"]


def test_a_run_that_another_plugin_refuses_is_not_recorded(tmp_path: Path) -> None:
    class Refusing:
        @hookimpl
        def lakeward_run_started(self) -> None:
            raise RuntimeError("not today")

    manager = pluggy.PluginManager("lakeward")
    manager.add_hookspecs(hookspecs)
    manager.register(Refusing())
    manager.register(run_history)
    with pytest.raises(RuntimeError):
        manager.hook.lakeward_run_started(run=info(tmp_path))
    assert not file_of(tmp_path).exists()


def test_a_history_that_cannot_be_written_refuses_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file_of(tmp_path).mkdir()
    with caplog.at_level(logging.WARNING):
        start(tmp_path)
    assert "history of runs cannot be written" in caplog.text


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_line_torn_anywhere_costs_no_other_run(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    directory = tmp_path_factory.mktemp("torn")
    for number in (1, 2):
        start(directory, number)
        finish(directory, number)
    whole = file_of(directory).read_bytes()
    torn = whole[: max(0, len(whole) - cut)]
    complete = {json.loads(line)["run"] for line in set(whole.splitlines()) & set(torn.splitlines()) if b'"status"' in line}
    file_of(directory).write_bytes(torn)
    start(directory, 3)
    finish(directory, 3)
    done = {run["run"] for run in read_history(directory) if run["status"] == "done"}
    assert done == complete | {"run3"}


@pytest.mark.parametrize(
    "junk", [b"", b"\0\0\0\0", b"\xff\xfe", b"[1]", b"17", b"null", b'"x"', b'{"run": "a"}', b'{"run": "a", "started": 5}',
             b'{"started": "2025-01-01"', b'{"run": "a", "started": "2025-01-01T00:00:00", "finished": "2025-01-01T00:00:00Z"}']
)  # fmt: skip
def test_lines_that_are_no_entry_are_skipped_with_a_warning(tmp_path: Path, junk: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    start(tmp_path)
    finish(tmp_path)
    file_of(tmp_path).write_bytes(junk + b"\n" + file_of(tmp_path).read_bytes())
    assert [run["run"] for run in read_history(tmp_path)] == ["run1"]
    assert f"{file_of(tmp_path)}:1: skipped" in capsys.readouterr().err


def test_a_large_file_loses_its_older_half(tmp_path: Path) -> None:
    finish(tmp_path, 0)
    line = file_of(tmp_path).read_bytes()
    count = MAX_BYTES // len(line) + 1
    file_of(tmp_path).write_bytes(b"".join(line.replace(b'"run0"', b'"r%05d"' % number) for number in range(count)))
    before = [run["run"] for run in read_history(tmp_path)]
    start(tmp_path, 1)
    after = [run["run"] for run in read_history(tmp_path)]
    assert after[-1] == "run1"
    assert after[:-1] == before[-(len(after) - 1) :]
    assert 0.48 < len(after) / len(before) < 0.52
    assert list(tmp_path.iterdir()) == [file_of(tmp_path)]


def test_an_endless_error_is_shortened(tmp_path: Path) -> None:
    finish(tmp_path, status="failed", error="x" * 10_000)
    assert read_history(tmp_path)[0]["error"] == "x" * 500


# -- the command; needs the command line of lakeward -------------------------------------------------------------------


def test_shows_the_newest_runs_first(tmp_path: Path) -> None:
    for number in range(1, 6):
        start(tmp_path, number)
        failed = number == 5
        finish(tmp_path, number, "failed" if failed else "done", "no\nroute to host" if failed else "", 90 if number == 4 else 1.5)
    lines = shown(tmp_path, "--limit", "2").splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["RUN", "STARTED", "DURATION", "READ", "DELIVERED", "FILTERED", "DEAD", "STATUS", "ERROR"]
    assert lines[1].split() == [
        "run5",
        "2025-01-01",
        "12:05:00Z",
        "1.5",
        "s",
        "1,000",
        "raw",
        "995",
        "2",
        "3",
        "failed",
        "no",
        "route",
        "to",
        "host",
    ]
    assert lines[2].split()[:4] == ["run4", "2025-01-01", "12:04:00Z", "0:01:30"]


def test_json_has_the_same_runs(tmp_path: Path) -> None:
    start(tmp_path, 1)
    finish(tmp_path, 1)
    start(tmp_path, 2)
    runs = json.loads(shown(tmp_path, "--json"))
    assert runs == read_history(tmp_path)[::-1]
    assert [(run["run"], run["status"], run["read"]) for run in runs] == [("run2", "running", None), ("run1", "done", 1000)]


def test_a_run_that_was_killed_has_no_numbers(tmp_path: Path) -> None:
    start(tmp_path, 1)
    start(tmp_path, 2)
    assert shown(tmp_path).splitlines()[-1].split() == ["run1", "2025-01-01", "12:01:00Z", "killed"]


def test_no_runs_are_no_mistake(tmp_path: Path) -> None:
    assert shown(tmp_path) == f"{tmp_path}: has not run yet\n"
    assert json.loads(shown(tmp_path, "--json")) == []


def test_finds_the_state_beside_the_pipeline(tmp_path: Path) -> None:
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text("name: demo\nsource: {use: sqlite, path: a.db}\nsinks: {raw: {use: parquet, path: raw}}\n")
    (tmp_path / ".lakeward/demo").mkdir(parents=True)
    finish(tmp_path / ".lakeward/demo")
    done = CliRunner().invoke(history, [str(pipeline), "--json"], catch_exceptions=False)
    assert [run["run"] for run in json.loads(done.stdout)] == ["run1"]


def test_a_limit_must_be_a_count() -> None:
    assert CliRunner().invoke(history, ["demo.yaml", "--limit", "0"]).exit_code == 2
