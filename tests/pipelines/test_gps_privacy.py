"""GPS-11: nothing that a run leaves behind holds a true position; and `lakeward privacy-report` on the real command line."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from commands import lakeward

KEY = {"GPS_FUZZ_KEY": "0123456789abcdef0123456789abcdef"}
PIPELINE = """
name: fleet
source: {use: sqlite, path: sensor.db, table: readings}
transforms:
  private:
    use: gps_fuzz
    gps_fuzzing: {radius_meters: 5000, key: {secret: GPS_FUZZ_KEY}, on_invalid: reject, on_missing: drop, OPTIONS}
sinks:
  lake: {use: parquet, path: lake}
batch: {rows: 1000}
"""
TRUE = [
    (48.13712345, 11.57512345), (-33.92481234, 18.42401234), (91.23456789, 12.34567891), (35.68951239, 539.6917123), (0.0, 0.0),
    (-54.80191234, -68.30301234), (52.51631234, None), (None, None), (71.17131234, 25.78391234), (40.71281234, -74.00601234),
]  # fmt: skip


def written(folder: Path, options: str = "epsilon: null", rows: list[tuple[Any, Any]] = TRUE, name: str = "{}") -> None:
    (folder / "p.yaml").write_text(PIPELINE.replace("OPTIONS", options))
    with closing(sqlite3.connect(folder / "sensor.db")) as database, database:
        database.execute(
            "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, sensor_id TEXT, temperature REAL, latitude REAL, "
            "longitude REAL, location TEXT, raw BLOB)"
        )
        for number, (lat, lon) in enumerate(rows):
            raw = struct.pack("<dd", lat or 0.0, lon or 0.0)
            values = ("2026-01-01T00:00:00Z", name.format(number), 20.5, lat, lon, f"{lat},{lon}", raw)
            database.execute("INSERT INTO readings VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", values)


def digits(values: list[tuple[Any, Any]]) -> list[bytes]:
    """Each coordinate to four decimals, cut and rounded, and as the bytes of a double."""
    found = set[bytes]()
    for value in (value for pair in values for value in pair if value):
        found |= {f"{abs(value):.4f}".encode(), f"{abs(value):.5f}"[:-1].encode(), struct.pack("<d", value), struct.pack(">d", value)}
    return sorted(found)


@pytest.mark.slow
def test_gps_11_nothing_that_a_run_leaves_behind_has_a_true_position(tmp_path: Path) -> None:
    written(tmp_path)
    said = ""
    for arguments in (
        ("run", "p.yaml", "--once", "--json", "--log-level", "debug", "--log-format", "json"), ("status", "p.yaml", "--json"),
        ("dead-letters", "list", "p.yaml", "--json"), ("history", "p.yaml", "--json"), ("verify", "p.yaml"), ("explain", "p.yaml"),
        ("privacy-report", "p.yaml"), ("privacy-report", "p.yaml", "--json"),
    ):  # fmt: skip
        ran = lakeward(tmp_path, *arguments, **KEY)
        said += ran.stdout + ran.stderr
    letters = json.loads(lakeward(tmp_path, "dead-letters", "list", "p.yaml", "--json", **KEY).stdout)["letters"]
    assert sorted((letter["row_low"], letter["reason"]) for letter in letters) == [(row, "position_invalid") for row in (3, 4, 7)]
    assert all(letter["row"]["latitude"] is None and letter["row"]["location"] is None for letter in letters)

    table = polars.read_parquet(tmp_path / "lake" / "*.parquet")
    assert sorted(table["id"].to_list()) == [1, 2, 5, 6, 9, 10]
    left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name not in ("p.yaml", "sensor.db")}
    assert [path for path in left if path.name == "state.db"]
    text = [said.encode(), repr(table.to_dicts()).encode(), *left.values()]
    doubles = [table[name].to_numpy().astype("<f8").tobytes() for name in ("latitude", "longitude")]
    assert not [needle for needle in digits(TRUE) if any(needle in place for place in [*text, *doubles])]
    assert KEY["GPS_FUZZ_KEY"].encode() not in b"".join(text)


def test_the_needles_would_be_found(tmp_path: Path) -> None:
    """The same search with the transform switched off finds every coordinate that is valid or not."""
    written(tmp_path, "enabled: false")
    ran = lakeward(tmp_path, "run", "p.yaml", "--once", **KEY)
    assert "TRUE POSITIONS go on" in ran.stderr
    table = polars.read_parquet(tmp_path / "lake" / "*.parquet")
    text = repr(table.to_dicts()).encode()
    assert all(f"{abs(value):.5f}"[:-1].encode() in text for pair in TRUE for value in pair if value)


# -- privacy-report ----------------------------------------------------------------------------------------------------


def report(folder: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lakeward(folder, "privacy-report", "p.yaml", "--json", *arguments, **KEY).stdout)
    return found


def standing(many: int) -> list[tuple[Any, Any]]:
    random = np.random.default_rng(1)
    return list(zip((48.1371 + random.normal(0, 1e-6, many)).tolist(), (11.5751 + random.normal(0, 1e-6, many)).tolist(), strict=True))


def test_a_report_attacks_the_real_rows_and_leaves_nothing_behind(tmp_path: Path) -> None:
    written(tmp_path, rows=standing(1_500), name="mast")
    found = report(tmp_path)
    one = found["transforms"]["private"]
    assert (one["rows"], one["devices"], one["carried"]) == (1_500, 1, {})
    assert [attack["reports"] for attack in one["averaging"]] == [1, 10, 100, 1000]
    assert one["averaging"][-1]["rms"] > 20 * one["averaging"][-1]["fresh"] / 2
    assert found["sinks_with_true_positions"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.yaml", "sensor.db"]
    assert report(tmp_path, "--limit", "1200")["transforms"]["private"]["rows"] == 1_200


def test_a_report_names_sinks_and_columns_with_true_positions(tmp_path: Path) -> None:
    written(tmp_path, "scrub_fields: [raw]", rows=standing(50))
    text = (tmp_path / "p.yaml").read_text().replace("sinks:", "sinks:\n  copy: {use: parquet, from: source, path: copy}")
    (tmp_path / "p.yaml").write_text(text)
    found = report(tmp_path)
    assert found["sinks_with_true_positions"] == ["copy"]
    assert found["transforms"]["private"]["carried"] == {"location": 50}
    said = lakeward(tmp_path, "privacy-report", "p.yaml", **KEY)
    assert "TRUE POSITIONS go to copy, past gps_fuzz" in said.stdout
    assert "location (in 50 rows)" in said.stdout
    assert "column location: CARRIES THE TRUE POSITION as text" in said.stderr


def test_a_report_in_words(tmp_path: Path) -> None:
    written(tmp_path, rows=standing(120), name="mast")
    said = lakeward(tmp_path, "privacy-report", "p.yaml", **KEY).stdout
    lines = [line.split() for line in said.splitlines()]
    assert ["MEAN", "OF", "DEVICES", "RMS", "(M)", "MEDIAN", "(M)", "FRESH", "(M)"] in lines
    assert [line[:3] for line in lines if line[1:2] in (["report"], ["reports"])] == [
        ["1", "report", "1"], ["10", "reports", "1"], ["100", "reports", "1"]
    ]  # fmt: skip
    assert "no sink takes positions past gps_fuzz" in said


def test_a_report_needs_a_transform_to_attack(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "p.yaml").write_text(
        "name: p\nsource: {use: sqlite, path: sensor.db, table: readings}\nsinks: {lake: {use: parquet, path: lake}}\n"
    )
    assert "no transform of this pipeline is `use: gps_fuzz`" in lakeward(tmp_path, "privacy-report", "p.yaml", code=1).stderr


def test_without_its_key_a_pipeline_does_not_begin(tmp_path: Path) -> None:
    written(tmp_path)
    for arguments in (("run", "p.yaml", "--once"), ("privacy-report", "p.yaml")):
        ran = lakeward(tmp_path, *arguments, code=2, GPS_FUZZ_KEY="")
        assert "p.yaml:7:" in ran.stderr
        assert "transforms.private.gps_fuzzing.key: environment variable GPS_FUZZ_KEY is not set" in ran.stderr
    (tmp_path / "p.yaml").write_text((tmp_path / "p.yaml").read_text().replace("key: {secret: GPS_FUZZ_KEY}, ", ""))
    ran = lakeward(tmp_path, "run", "p.yaml", "--once", code=2, GPS_FUZZ_KEY="")
    assert "transforms.private.key: required, but missing: ${env:GPS_FUZZ_KEY} is not set" in ran.stderr
    lakeward(tmp_path, "check", "p.yaml", **KEY)


def test_a_row_that_must_not_come_ends_the_run_and_is_not_passed_over(tmp_path: Path) -> None:
    written(tmp_path)
    text = (tmp_path / "p.yaml").read_text()
    (tmp_path / "p.yaml").write_text(text.replace("on_invalid: reject", "on_invalid: error"))
    ran = lakeward(tmp_path, "run", "p.yaml", "--once", code=1, **KEY)
    assert "position_invalid, and on_invalid is error; of 10 rows: " in ran.stderr
    assert "latitude or longitude is out of range: 2" in ran.stderr
    assert not [needle for needle in digits(TRUE) if needle in ran.stderr.encode()]
    (tmp_path / "p.yaml").write_text(text.replace("on_invalid: reject", "on_invalid: null"))
    assert json.loads(lakeward(tmp_path, "run", "p.yaml", "--once", "--json", **KEY).stdout)["rows"]["read"] == len(TRUE)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal of its own")
def test_on_a_terminal_a_report_shows_how_far_it_is(tmp_path: Path) -> None:
    written(tmp_path, rows=standing(3_000), name="mast")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lakeward", "privacy-report", "p.yaml", "--limit", "3000"]
    ran = subprocess.run(command, cwd=tmp_path, env=os.environ | KEY, stdout=subprocess.PIPE, stderr=theirs, check=True, text=True)
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "private: rows" in shown
    assert "3000" in shown
    assert "private" in ran.stdout
