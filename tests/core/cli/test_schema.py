"""`lakeward schema`: right files are right, and mistakes are seen at their place."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from lakeward.cli import lakeward
from lakeward.cli.schema import of_component, of_file
from lakeward.errors import LakewardError
from lakeward.plugins import load_plugins
from lakeward.secrets import SecretReference
from lakeward.yamlfile.document import parse

ROOT = Path(__file__).parents[3]
PLUGINS = load_plugins()
SCHEMA = of_file(PLUGINS)
VALIDATOR = Draft202012Validator(SCHEMA)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class AsWritten(dict[str, str]):
    """Every variable is what stands for it."""

    def get(self, key: str, default: Any = None) -> Any:
        return f"${{{key}}}"


def read(text: str) -> Any:
    """YAML as an editor sees it."""
    return plain(parse(text, "p.yaml", AsWritten()).data)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, SecretReference) else value


def mistakes(data: Any, validator: Any = VALIDATOR) -> list[str]:
    """Where something is wrong, as deep as it is known."""

    def deepest(error: Any) -> list[Any]:
        return [leaf for inner in error.context for leaf in deepest(inner)] or [error]

    found = [leaf for error in validator.iter_errors(data) for leaf in deepest(error)]
    return sorted({".".join(map(str, leaf.absolute_path)) for leaf in found}, key=lambda path: -path.count("."))


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_right(path: Path) -> None:
    assert mistakes(read(path.read_text())) == []


def test_yaml_in_the_manual_is_right() -> None:
    whole = 0
    for page in PAGES:
        for text in BLOCK.findall(page.read_text()):
            data = read(text)
            if not isinstance(data, dict) or not data.keys() & {"source", "transforms", "sinks", "pipelines"}:
                continue  # a part of a node
            wrong = (
                mistakes(data)
                if "name" in data
                else mistakes({"name": "a", "source": {"use": "sqlite", "path": "a"}, "sinks": NODE, **data})
            )
            assert wrong == [], f"{page.name}: {wrong}\n{text}"
            whole += 1
    assert whole >= 10


NODE = {"out": {"use": "parquet", "path": "lake"}}


def pipeline(**changes: Any) -> dict[str, Any]:
    return {"name": "p", "source": {"use": "sqlite", "path": "s.db"}, "sinks": NODE} | changes


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (pipeline(sorce=1), ""),
        (pipeline(name="a b"), "name"),
        (pipeline(name=5), "name"),
        ({"name": "p", "sinks": NODE}, ""),
        ({"name": "p", "source": {"use": "sqlite", "path": "s.db"}}, ""),
        (pipeline(sinks={}), "sinks"),
        (pipeline(sinks={"source": NODE["out"]}), "sinks"),
        (pipeline(source={"path": "s.db"}), "source"),
        (pipeline(source={"use": "sqlit", "path": "s.db"}), "source.use"),
        (pipeline(source={"use": "sqlite"}), "source"),
        (pipeline(source={"use": "sqlite", "path": "s.db", "tabel": "t"}), "source"),
        (pipeline(source={"use": "sqlite", "path": ["s.db"]}), "source.path"),
        (pipeline(transforms={"f": {"use": "filter", "where": {"t": {">": None}}}}), "transforms.f.where.t.>"),
        (pipeline(transforms={"f": {"use": "filter", "nulls": "drop"}}), "transforms.f.nulls"),
        (pipeline(transforms={"f": {"use": "filter", "from": 5}}), "transforms.f.from"),
        (pipeline(transforms={"f": {"use": "sink"}}), "transforms.f.use"),
        (pipeline(transforms={"q": {"use": "sql"}}), "transforms.q"),
        (pipeline(transforms={"q": {"use": "sql", "query": "SELECT", "max_mb": 1}}), "transforms.q.max_mb"),
        (pipeline(transforms={"s": {"use": "schematize", "columns": {"a": "duble"}}}), "transforms.s.columns.a"),
        (pipeline(transforms={"g": {"use": "gps_fuzz", "key": "my own key, written here"}}), "transforms.g.key"),
        (pipeline(transforms={"g": {"use": "gps_fuzz", "key": {"secret": "my own key"}}}), "transforms.g.key.secret"),
        (pipeline(transforms=[{"use": "filter"}]), "transforms"),
        (pipeline(batch={"rows": 0}), "batch.rows"),
        (pipeline(batch={"wait": "5 weeks"}), "batch.wait"),
        (pipeline(batch={"wiat": "5s"}), "batch"),
        (pipeline(pipelines={"a": {"sinks": NODE}}), ""),
        ({"name": "p", "source": {"use": "sqlite", "path": "s.db"}, "pipelines": {"a": {"transforms": {}}}}, "pipelines.a"),
    ],
)
def test_mistakes_are_seen_at_their_place(data: dict[str, Any], place: str) -> None:
    assert place in mistakes(data)


@pytest.mark.parametrize(
    "data",
    [
        pipeline(batch={"rows": "${ROWS:-1000}", "wait": "${WAIT}"}, select="${WHICH}"),
        pipeline(transforms={"f": {"use": "transforms/filter", "filter_config": "${FILTER_CONFIG}", "from": ["a", "b.valid"]}}),
        pipeline(transforms={"g": {"use": "gps_fuzz", "key": "${env:KEY}", "radius_meters": 50}}),
        pipeline(transforms={"g": {"use": "gps_fuzz", "gps_fuzzing": {"key": {"secret": "GPS_FUZZ_KEY"}}}}),
        {"name": "p", "source": {"use": "sqlite", "path": "s.db"}, "pipelines": {"a": {"sinks": NODE}}, "select": "a"},
    ],
)
def test_variables_secrets_and_several_graphs_are_right(data: dict[str, Any]) -> None:
    assert mistakes(data) == []


def test_defaults_of_all_components_are_right() -> None:
    seen = 0
    for definition in SCHEMA["$defs"].values():
        for name, one in definition.get("properties", {}).items():
            if "default" in one:
                seen += 1
                assert mistakes(one["default"], Draft202012Validator(one | {"$defs": SCHEMA["$defs"]})) == [], name
    assert seen > 50


PLUGIN = """
from typing import ClassVar
from attrs import define
from lakeward import Component, hookimpl, option

LAKEWARD_API = (1, 0)

@hookimpl
def lakeward_components():
    return [Component("transform", "old", "forms:Old", "Old."), Component("transform", "gone", "forms:Gone", "Gone.", "lakeward[gone]"),
            Component("transform", "lost", "no_such_module:Lost", "Lost.", "lakeward[lost]")]

@define
class Old:
    ports: ClassVar = ("main",)
    row_wise: ClassVar = True
    block: ClassVar = "old_config"
    limit: float = option(help="A number.", maximum=10)
    deep: dict[str, float] = option(factory=dict, help="A mapping.")
    def apply(self, batch):
        return batch
"""


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """A schema with a component that takes its options in a block too."""
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("forms", None)
    (tmp_path / "forms.py").write_text(PLUGIN)
    return of_file(load_plugins(entries=[EntryPoint("forms", "forms", "lakeward")]))


def node(**options: Any) -> dict[str, Any]:
    return {"use": "old", **options}


@pytest.mark.parametrize(
    "options",
    [
        {"limit": 3, "deep": {"a": 1}},
        {"old_config": {"limit": 3, "deep": {"a": 1}}},
        {"limit": 3, "old_config": {"deep": {"a": 1}}},
        {"limit": 3, "old_config": None},
        {"old_config": '{"limit": 3}'},
        {"old_config": "${OLD_CONFIG}"},
    ],
)
def test_options_stand_beside_use_or_in_the_block(old: Mapping[str, Any], options: dict[str, Any]) -> None:
    validator = Draft202012Validator({"$ref": "#/$defs/transform", "$defs": old["$defs"]})
    assert mistakes(node(**options), validator) == []


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, ""),
        ({"old_config": {}}, ""),
        ({"old_config": {"limit": 11}}, "old_config.limit"),
        ({"old_config": {"limit": 3, "deap": {}}}, "old_config"),
        ({"old_config": [1], "limit": 1}, "old_config"),
        ({"limit": 3, "old_config": {"deep": {"a": "x"}}}, "old_config.deep.a"),
    ],
)
def test_mistakes_in_the_block_are_seen(old: Mapping[str, Any], options: dict[str, Any], place: str) -> None:
    validator = Draft202012Validator({"$ref": "#/$defs/transform", "$defs": old["$defs"]})
    assert place in mistakes(node(**options), validator)


def test_both_forms_are_told(old: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakeward.plugins.entry_points", lambda group: [EntryPoint("forms", "forms", group)])
    shown = CliRunner().invoke(lakeward, ["plugins", "show", "old"], catch_exceptions=False)
    assert "options are also accepted inside a mapping `old_config:`" in shown.stdout
    as_json = CliRunner().invoke(lakeward, ["plugins", "show", "old", "--json"], catch_exceptions=False)
    assert json.loads(as_json.stdout)[0]["block"] == "old_config"
    assert "deep" in old["$defs"]["transform.forms.old"]["properties"]["old_config"]["properties"]


def test_a_component_that_cannot_be_imported_takes_any_options(old: Mapping[str, Any]) -> None:
    validator = Draft202012Validator({"$ref": "#/$defs/transform", "$defs": old["$defs"]})
    assert mistakes({"use": "lost", "anything": 1}, validator) == []
    assert "pip install 'lakeward[lost]'" in old["$defs"]["transform.forms.lost"]["description"]


def test_the_schema_of_one_component() -> None:
    schema = of_component(PLUGINS, "transform/schematize")
    validator = Draft202012Validator(schema)
    Draft202012Validator.check_schema(schema)
    assert mistakes({"use": "schematize", "columns": {"a": "double", "b": {"type": "text", "required": True}}}, validator) == []
    assert "columns.b" in mistakes({"use": "schematize", "columns": {"b": {"type": "text", "requird": True}}}, validator)
    with pytest.raises(LakewardError, match="several components are named 'parquet'; there are sink/parquet, source/parquet"):
        of_component(PLUGINS, "parquet")
    with pytest.raises(LakewardError, match="no component is named 'emergensy'; there are sink/"):
        of_component(PLUGINS, "emergensy")


def test_the_command_prints_it() -> None:
    whole = CliRunner().invoke(lakeward, ["schema"], catch_exceptions=False)
    assert json.loads(whole.stdout) == SCHEMA
    one = CliRunner().invoke(lakeward, ["schema", "--component", "filter"], catch_exceptions=False)
    assert json.loads(one.stdout) == of_component(PLUGINS, "filter")
