from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from lakeward.cli.logs import start_logging
from lakeward.secrets import Secret


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging belongs to the whole process."""
    root, ours = logging.getLogger(), logging.getLogger("lakeward")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:], root.level = before[0], before[1]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def test_json_lines_hold_time_level_message_fields_and_exception(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("json", "info")
    log = logging.getLogger("lakeward.run")
    log.warning("sink %s is slow\nvery", "größe", extra={"event": "slow", "fields": {"sink": "a", "seconds": 1.5, "path": timedelta(1)}})
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("failed")
    out, err = capsys.readouterr()
    first, second = map(json.loads, err.splitlines())
    assert out == ""
    assert abs(datetime.fromisoformat(first.pop("time")) - datetime.now(UTC)) < timedelta(minutes=1)
    assert first == {
        "level": "warning", "logger": "lakeward.run", "message": "sink größe is slow\nvery", "event": "slow",
        "sink": "a", "seconds": 1.5, "path": "1 day, 0:00:00",
    }  # fmt: skip
    assert second["level"] == "error"
    assert second["exception"].splitlines()[-1] == "ValueError: no"


def test_text_says_when_how_bad_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("text", "info")
    logging.getLogger("lakeward.run").error("disk full")
    date, clock, level, message = capsys.readouterr().err.split(maxsplit=3)
    assert (level, message) == ("ERROR", "disk full\n")
    assert datetime.strptime(f"{date} {clock}", "%Y-%m-%d %H:%M:%S,%f")  # local time


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_masked_in_every_format_and_logger(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    Secret('l0gged "s3cret"', "env:X")
    start_logging(log_format, "debug")
    for name in ("lakeward.run", "botocore", ""):
        logging.getLogger(name).warning("token %s", 'l0gged "s3cret"')
    err = capsys.readouterr().err
    assert err.count("***") == 3
    assert "s3cret" not in err


@pytest.mark.parametrize(("level", "ours"), [("debug", ["debug", "info", "error"]), ("info", ["info", "error"]), ("error", ["error"])])
def test_the_level_is_for_our_loggers_and_others_never_go_below_info(
    capsys: pytest.CaptureFixture[str], level: str, ours: list[str]
) -> None:
    start_logging("json", level)
    for name in ("lakeward.deliver", "botocore.auth"):
        for said in ("debug", "info", "error"):
            getattr(logging.getLogger(name), said)(said)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines if line["logger"] == "lakeward.deliver"] == ours
    assert "debug" not in [line["message"] for line in lines if line["logger"] == "botocore.auth"]


def test_starting_twice_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("text", "info")
    start_logging("text", "info")
    logging.getLogger("lakeward").info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_other_libraries_only_warn(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("text", "debug")
    logging.getLogger("botocore").info("Found credentials")
    logging.getLogger("botocore").warning("clock skew")
    assert capsys.readouterr().err.splitlines()[0].endswith("WARNING clock skew")


@pytest.mark.parametrize(("terminal", "start"), [(True, "\r\x1b[K2"), (False, "2")])
def test_on_a_terminal_a_log_line_clears_the_line_of_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool, start: str
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    start_logging("text", "info")
    logging.getLogger("lakeward.run").info("batch 1")
    assert capsys.readouterr().err.startswith(start)
