import base64
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakeward import OptionError
from lakeward.testing import SinkContract, make_parcel
from lakeward.testing.hostile import EXTREMES, TYPES
from lakeward_plugins.sinks.console import ConsoleSink

READINGS = pa.record_batch({"_row": [1, 2, 3], "sensor": ["north", "Ω", None], "temperature": [20.5, -3.0, float("nan")]})


class TestConsoleSink(SinkContract):
    ordered = True

    @pytest.fixture(autouse=True)
    def terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.out = capsys, ""

    def make(self, tmp_path: Path) -> ConsoleSink:
        return ConsoleSink(format="json", limit=None)

    def read_back(self, tmp_path: Path) -> pa.Table:
        self.out += self.capsys.readouterr().out
        rows = [json.loads(line) for line in self.out.split("\n") if line]
        return pa.table({name: from_json(name, [row[name] for row in rows]) for name in (rows[0] if rows else [])})

    def test_same_token_twice_takes_effect_once(self, tmp_path: Path) -> None:
        """Within one process only: the console promises nothing after a restart."""
        parcel, sink = make_parcel(tmp_path / "spool", READINGS), self.make(tmp_path)
        sink.deliver(parcel)
        sink.deliver(parcel)
        assert self.read_back(tmp_path).num_rows == 3

    @pytest.mark.parametrize("word", [word for word in (*TYPES, *EXTREMES) if word != "not_finite"])  # JSON has none: they are null
    def test_value_arrives_unchanged_or_is_refused(self, tmp_path: Path, word: str) -> None:
        super().test_value_arrives_unchanged_or_is_refused(tmp_path, word)


def from_json(name: str, values: Sequence[Any]) -> pa.Array:
    """The column `a_<type>` of the contract, from what JSON can say."""
    kind = TYPES.get(name.removeprefix("a_"), pa.nulls(0)).type
    if pa.types.is_binary(kind):
        return pa.array([None if value is None else base64.b64decode(value) for value in values])
    if pa.types.is_time(kind):
        return pa.array([None if value is None else time.fromisoformat(value) for value in values], kind)
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return pa.array(values, pa.string()).cast(kind)
    return pa.array(values)


def printed(capsys: pytest.CaptureFixture[str], tmp_path: Path, rows: pa.RecordBatch = READINGS, **options: Any) -> str:
    ConsoleSink(**options).deliver(make_parcel(tmp_path / "spool", rows))
    return capsys.readouterr().out


def test_table_is_aligned_under_sink_token_and_number_of_rows(capsys, tmp_path):
    assert printed(capsys, tmp_path) == (
        "s  p/s-0123abcd-0000-0000000001  3 rows\n"
        "sensor  temperature\n"
        "------  -----------\n"
        "north          20.5\n"
        "Ω              -3.0\n"
        "                nan\n"
    )


def test_rows_beyond_the_limit_are_counted(capsys, tmp_path):
    lines = printed(capsys, tmp_path, limit=1).splitlines()
    assert lines[-2:] == ["north          20.5", "... and 2 more"]


def test_limit_zero_prints_the_counts_only(capsys, tmp_path):
    assert printed(capsys, tmp_path, limit=0).splitlines() == ["s  p/s-0123abcd-0000-0000000001  3 rows", "... and 3 more"]


def test_no_limit_prints_every_row(capsys, tmp_path):
    many = pa.record_batch({"n": list(range(2_500))})
    lines = printed(capsys, tmp_path, many, format="json", limit=None).splitlines()
    assert [json.loads(line)["n"] for line in lines] == list(range(2_500))


def test_chosen_columns_come_in_the_order_asked_for(capsys, tmp_path):
    line = printed(capsys, tmp_path, format="json", columns=["temperature", "sensor"]).splitlines()[0]
    assert line == '{"temperature": 20.5, "sensor": "north"}'


def test_json_lines_stay_json_when_rows_are_left_out(capsys, tmp_path):
    ConsoleSink(format="json", limit=2).deliver(make_parcel(tmp_path / "spool", READINGS))
    out, err = capsys.readouterr()
    assert [json.loads(line)["sensor"] for line in out.splitlines()] == ["north", "Ω"]
    assert err == "p/s-0123abcd-0000-0000000001: 1 more rows are not shown (limit: 2)\n"


def test_json_has_iso_times_base64_bytes_and_null_for_what_is_no_number(capsys, tmp_path):
    rows = pa.record_batch(
        {
            "utc": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "Europe/Oslo")),
            "local": pa.array([0], pa.timestamp("us")),
            "day": pa.array([19_000], pa.date32()),
            "took": pa.array([1500], pa.duration("ms")),
            "raw": pa.array([b"\x00\xff"]),
            "odd": pa.array([float("-inf")]),
            "nested": pa.array([[float("nan"), 1.5]]),
        }
    )
    assert json.loads(printed(capsys, tmp_path, rows, format="json")) == {
        "utc": "2023-11-14T22:13:20.123456789Z",
        "local": "1970-01-01T00:00:00.000000",
        "day": "2022-01-08",
        "took": "1500ms",
        "raw": "AP8=",
        "odd": None,
        "nested": [None, 1.5],
    }


def test_control_characters_cannot_move_the_cursor(capsys, tmp_path):
    text = printed(capsys, tmp_path, pa.record_batch({"note": ["\x1b[2Jgone\r\n", "x" * 50]}))
    assert "\x1b" not in text
    assert "\\x1b[2Jgone\\r\\n" in text
    assert "x" * 39 + "…\n" in text


def test_same_token_prints_once_and_another_prints(capsys, tmp_path):
    sink, parcel = ConsoleSink(format="json"), make_parcel(tmp_path / "spool", READINGS)
    for delivered in (parcel, parcel, make_parcel(tmp_path / "spool", READINGS, sequence=2)):
        sink.deliver(delivered)
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_missing_column_is_told_before_the_first_row():
    with pytest.raises(OptionError, match=r"columns: no column 'humidity'; columns are _row, sensor, temperature"):
        ConsoleSink(columns=["sensor", "humidity"]).probe(READINGS.schema)


PIPED = """
import sys
from datetime import time
from pathlib import Path
from lakeward import Refused
from lakeward.components import Parcel, Token
from lakeward_plugins.sinks.console import ConsoleSink
try:
    ConsoleSink(format=sys.argv[2], limit=None).deliver(Parcel(Token("p", "s", "0123abcd", 0, 1), Path(sys.argv[1]), int(sys.argv[3]), ""))
except Refused as refused:
    print(refused, file=sys.stderr)
    sys.stdout = None
"""


def run(tmp_path: Path, rows: pa.RecordBatch, form: str, **popen: Any) -> subprocess.Popen[bytes]:
    parcel = make_parcel(tmp_path / "spool", rows)
    arguments = [sys.executable, "-c", PIPED, str(parcel.path), form, str(rows.num_rows)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **popen.pop("env", {})}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **popen)


def test_closed_pipe_is_refused_in_words(tmp_path):
    with run(tmp_path, pa.record_batch({"n": list(range(50_000))}), "json") as process:
        process.stdout.close()
        assert process.stderr.read().decode() == "standard output was closed by the program that read it; run again without that pipe\n"


def test_terminal_without_utf8_gets_escapes(tmp_path):
    with run(tmp_path, READINGS, "table", env={"PYTHONIOENCODING": "ascii"}) as process:
        out, err = process.communicate()
    assert err == b""
    assert b"\\u03a9" in out
