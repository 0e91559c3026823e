import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lakeward import Parcel, Receipt
from lakeward.components import Token
from lakeward.hookspecs import BatchInfo, RunInfo, RunResult
from lakeward.testing import PluginContract
from lakeward_plugins.ops import run_log

STARTED = datetime(2025, 1, 1, tzinfo=UTC)
RUN = RunInfo("r1", "environmental", Path("pipeline.yaml"), Path(".lakeward/environmental"), STARTED)


class TestRunLogContract(PluginContract):
    module = "lakeward_plugins.ops.run_log"


def batch(dead: int = 0) -> BatchInfo:
    return BatchInfo(7, 1, "a.db", 1500, dead, {"clean: too_hot": 12}, {"raw": 1500, "alerts": 3})


def result(status: Any = "done", error: str = "") -> RunResult:
    return RunResult(status, STARTED + timedelta(seconds=2.5), 1500, 4, 12, {"raw": 1500}, error)


def only(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    (record,) = caplog.records
    assert record.name == "lakeward.run"
    assert set(record.fields) >= {"pipeline", "run"}  # type: ignore[attr-defined]  # from `extra`
    assert not set(record.fields) & {"time", "level", "logger", "message", "event"}  # type: ignore[attr-defined]  # names of the JSON line
    json.dumps(record.fields)  # type: ignore[attr-defined]  # what it cannot write is a bug
    return record


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "lakeward.run")


def test_a_started_run_names_its_files(caplog: pytest.LogCaptureFixture) -> None:
    run_log.lakeward_run_started(RUN)
    record: Any = only(caplog)
    assert record.event == "run_started"
    assert record.fields["config"] == "pipeline.yaml"
    assert record.fields["started"] == "2025-01-01T00:00:00+00:00"


def test_a_batch_says_where_its_rows_go(caplog: pytest.LogCaptureFixture) -> None:
    run_log.lakeward_batch_recorded(RUN, batch())
    record: Any = only(caplog)
    assert record.event == "batch_recorded"
    assert record.getMessage() == "environmental: batch 7: 1,500 rows read, 1,500 for raw, 3 for alerts, 12 filtered (clean: too_hot)"
    assert record.fields["sinks"] == {"raw": 1500, "alerts": 3}
    assert record.fields["filtered"] == {"clean: too_hot": 12}
    assert record.levelno == logging.INFO


def test_dead_letters_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    run_log.lakeward_batch_recorded(RUN, batch(dead=4))
    record = only(caplog)
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith("4 dead letters")


def test_a_delivery_carries_its_proof(caplog: pytest.LogCaptureFixture) -> None:
    parcel = Parcel(Token("environmental", "raw", "life", 1, 7), Path("spool/x.parquet"), 1500, "abc")
    run_log.lakeward_parcel_delivered(RUN, parcel, Receipt("lake/raw/x.parquet", {"version": 3}))
    record: Any = only(caplog)
    assert record.event == "parcel_delivered"
    assert record.fields["token"] == "raw-life-0001-0000000007"
    assert record.fields["details"] == {"version": 3}
    assert "raw has 1,500 rows of batch 7: lake/raw/x.parquet" in record.getMessage()


def test_a_failed_run_is_an_error_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    run_log.lakeward_run_finished(RUN, result("failed", "sink raw: 100 % sure"))
    record: Any = only(caplog)
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "environmental: run r1 failed after 2.5 s, 1,500 rows read: sink raw: 100 % sure"
    assert record.fields["seconds"] == 2.5
    assert record.fields["delivered"] == {"raw": 1500}


def test_a_good_end_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    run_log.lakeward_run_finished(RUN, result())
    assert only(caplog).levelno == logging.INFO
