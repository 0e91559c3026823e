"""What `lakeward migrate` makes of odd files, keys and values."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from lakeward.errors import LakewardError
from lakeward.yamlfile.document import parse
from lakeward_plugins.ops.migrate.command import migrate
from lakeward_plugins.ops.migrate.draft import Draft, Graph, Node, written
from lakeward_plugins.ops.migrate.old import Old, read
from lakeward_plugins.ops.migrate.systems import migrated


def old(tmp_path: Path, text: str, **variables: str) -> Old:
    (tmp_path / "old").write_text(text)
    return read(tmp_path / "old", (), variables)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "is no YAML"),
        ("- 1", "a mapping of keys is expected"),
        ("[" * 3000, "is no YAML"),
        ("a: 2026-13-45", "is no YAML"),
        ("{}", "nothing in it is a key"),
        ("table_path: x\naggregate_config: &x {aggregations: *x}", "aliases .* write out what they stand for"),
        ("sqlite: a.db", "it is not clear which uploader"),
        ("x: '" + "y" * 300_000 + "'", "more than 256 KiB"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LakewardError, match=said):
        migrated(old(tmp_path, text), None)


def test_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"a: \xff")
    with pytest.raises(LakewardError, match="no UTF-8 text"):
        read(tmp_path / "old", (), {})


@pytest.mark.parametrize(
    ("mode", "active"),
    [("raw", "raw"), ("sanitized", "filtered"), ("aggregated", "emergency"), ("EMERGENCY", "emergency"), ("nonsense", "raw"), ("", "raw")],
)
def test_processing_modes(tmp_path: Path, mode: str, active: str) -> None:
    found = migrated(
        old(tmp_path, f"databricks_table: t\nprocessing_mode: '{mode}'\naggregate_config: {{aggregations: {{a: mean}}}}"), None
    )
    assert found.select == active
    told = {note.key for note in found.notes}
    assert ("processing_mode" in told) == (mode not in ("raw", "EMERGENCY", ""))
    assert ("select" in told) == (mode in ("nonsense", ""))


@pytest.mark.parametrize(
    ("key", "active"), [("enable_sanitization", "schematized"), ("enable_filter", "filtered"), ("enable_aggregation", "emergency")]
)
def test_switches(tmp_path: Path, key: str, active: str) -> None:
    assert migrated(old(tmp_path, f"databricks_table: t\n{key}: true"), None).select == active
    assert migrated(old(tmp_path, f"databricks_table: t\n{key}: false"), None).select == "raw"


def test_every_key_is_taken_or_named(tmp_path: Path) -> None:
    found = migrated(
        old(tmp_path, "databricks_table: t\ntelemetry: yes\ngps_fuzzing: {radius_meters: 5, jitter: 1}\nfilter_config: '{broken'"), None
    )
    told = {note.key: note for note in found.notes}
    assert {"telemetry", "gps_fuzzing.jitter", "filter_config"} <= set(told)
    assert all(note.why and note.todo for note in found.notes)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("s3_configuration: [1]", "s3_configuration"),
        ("s3_configuration: {prefix: p, buckets: [1, 2]}", "s3_configuration.buckets"),
        ("s3_region: r\ns3_bucket_prefix: p\ns3_buckets: 5", "s3_buckets"),
        ("endpoint: https://x\nperformance: [1]", "performance"),
        ("s3_buckets: {validated: v}\naggregate_config: [1]", "aggregate_config"),
        ("databricks_table: t\nprocessing_mode: aggregated\nemergency_config: 7", "emergency_config"),
    ],
)
def test_a_block_of_another_shape_is_named(tmp_path: Path, text: str, key: str) -> None:
    told = {note.key: note.why for note in migrated(old(tmp_path, text), None).notes if note.why == "it is no mapping"}
    assert list(told) == [key]


def test_one_column_without_nulls_may_stand_alone(tmp_path: Path) -> None:
    found = migrated(old(tmp_path, "databricks_table: t\nprocessing_mode: filtered\nsanitize_config: {remove_nulls: temperature}"), None)
    [clean] = [node for graph in found.graphs if graph.name == "filtered" for node in graph.transforms]
    assert clean.options["remove_nulls"] == ["temperature"]


def test_variables_win_over_the_file_and_stay_in_front(tmp_path: Path) -> None:
    found = migrated(old(tmp_path, "table_path: a/b\nsqlite: x.db", TABLE_PATH="s3://lake/t", SQLITE_PATH="y.db"), None)
    assert found.source["path"] == "${SQLITE_PATH:-y.db}"
    assert found.graphs[0].sinks[0].options["path"] == "${TABLE_PATH:-s3://lake/t}"


@pytest.mark.parametrize("written_as", ["$MY_TOKEN", "${MY_TOKEN}"])
def test_a_secret_that_was_a_variable_keeps_its_name(tmp_path: Path, written_as: str) -> None:
    found = migrated(old(tmp_path, f"databricks_table: t\ndatabricks_token: {written_as}"), None)
    assert found.variables == ["MY_TOKEN"]
    assert found.graphs[0].sinks[0].options["token"] == "${env:MY_TOKEN}"


def test_quotes_comments_and_variables_in_env_files(tmp_path: Path) -> None:
    text = "A=1\nexport SQLITE_PATH=\"${A}/x # y.db\"\nTABLE_PATH=$A/t # where\nUPLOAD_INTERVAL='5'\n"
    found = old(tmp_path, text)
    assert found.values == {"sqlite": "1/x # y.db", "table_path": "1/t", "interval": "5"}


def test_odd_values_come_back_as_they_were() -> None:
    values = {
        "a": "no",
        "b": "1e3",
        "c": "x: y # z",
        "d": "${NOT closed",
        "e": "${A:-b c}",
        "f": 'q"\\ö',
        "g": "",
        "h": "2026-01-01",
        "i": [1, None],
    }
    text = written(Draft("s", "n", {"use": "sqlite", **values}, [Graph("main", [], [Node("a", {"use": "parquet"})])]), "old", "new")
    assert yaml.safe_load(text)["source"] == {"use": "sqlite"} | values | {"d": "$${NOT closed"}
    read_back = parse(text, "new", {}).data["source"]
    assert read_back == {"use": "sqlite"} | values | {"e": "b c"}


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("table_path: lake")
    (tmp_path / "new").write_text("mine")
    arguments = [str(tmp_path / "old"), "-o", str(tmp_path / "new")]
    said = CliRunner().invoke(migrate, arguments)
    assert said.exit_code == 2
    assert "is there already" in said.output
    assert (tmp_path / "new").read_text() == "mine"
    assert CliRunner().invoke(migrate, [*arguments, "--force"]).exit_code == 0
    assert yaml.safe_load((tmp_path / "new").read_text())["name"] == "to_delta"
