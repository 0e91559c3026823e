from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from lakeward.config import Config, load
from lakeward.errors import ConfigError

GOOD = """\
name: environmental
source: {use: sqlite, path: data.db}
transforms:
  checked: {use: physics, rules: [{max: 1}, {max: 2}]}
  private: {use: fuzz, from: checked.valid}
sinks:
  raw: {use: parquet, from: source, path: raw}
  both: {use: delta, from: [checked.anomalies, private]}
  last: {use: parquet}
batch: {rows: 500, wait: 10s}
"""
SEVERAL = """\
name: environmental
source: {use: sqlite}
pipelines:
  raw: {sinks: {out: {use: parquet}}}
  filtered: {transforms: {hot: {use: filter}}, sinks: {out: {use: parquet}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "p.yaml"


def read(file: Path, text: str = GOOD, *overrides: str, environment: Mapping[str, str] | None = None) -> Config:
    file.write_text(text)
    return load(file, overrides, environment or {})


def mistakes(file: Path, text: str, *overrides: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """The messages, without the folder of the file."""
    with pytest.raises(ConfigError) as caught:
        read(file, text, *overrides, environment=environment)
    return [str(problem).removeprefix(f"{file.parent}/") for problem in caught.value.problems]


# -- what a good file says ---------------------------------------------------------------------------------------------


def test_nodes_have_a_use_inputs_and_the_options_of_their_plugin(file: Path) -> None:
    config = read(file)
    graph = config.graph()
    assert (config.name, config.folder, config.source.use, dict(config.source.options)) == (
        "environmental",
        file.parent,
        "sqlite",
        {"path": "data.db"},
    )
    assert list(graph.transforms) == ["checked", "private"]
    assert list(graph.sinks) == ["raw", "both", "last"]
    assert graph.transforms["checked"].inputs == ()
    assert graph.sinks["both"].inputs == ("checked.anomalies", "private")
    assert graph.sinks["raw"].inputs == ("source",)
    assert dict(graph.sinks["raw"].options) == {"path": "raw"}


def test_defaults_hold_where_nothing_is_written(file: Path) -> None:
    config = read(file, "name: x\nsource: {use: sqlite}\nsinks: {a: {use: parquet}}")
    assert (config.batch.rows, config.batch.wait, config.spool.max_mb, config.plugins.allow) == (
        100_000,
        timedelta(seconds=5),
        1024.0,
        None,
    )


def test_the_folder_is_that_of_the_file_wherever_one_stands(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(GOOD)
    monkeypatch.chdir(file.parent)
    assert load(Path("p.yaml"), (), {}).folder == file.parent


def test_a_repr_of_a_configuration_shows_no_option(file: Path) -> None:
    assert "data.db" not in repr(read(file))


# -- overrides ---------------------------------------------------------------------------------------------------------


def test_the_command_line_beats_the_environment_which_beats_the_file(file: Path) -> None:
    environment = {"LAKEWARD__batch__rows": "6", "LAKEWARD__batch__wait": "7s", "OTHER": "x"}
    batch = read(file, GOOD, "batch.rows=8", environment=environment).batch
    assert (batch.rows, batch.wait) == (8, timedelta(seconds=7))
    assert read(file, GOOD, "batch.rows=8", "batch.rows=9").batch.rows == 9


def test_an_override_may_be_any_yaml_also_with_references(file: Path) -> None:
    config = read(file, GOOD, "source={use: parquet, path: $X}", "sinks.raw.path=${X}", "batch.rows=${N:-3}", environment={"X": "a=b: c"})
    assert (config.source.use, dict(config.source.options), config.batch.rows) == ("parquet", {"path": "$X"}, 3)
    assert config.graph().sinks["raw"].options["path"] == "a=b: c"


def test_an_override_makes_the_mappings_it_needs(file: Path) -> None:
    config = read(file, GOOD, "spool.max_mb=5", "sinks.new.use=console", "sinks.last.deep.er=1")
    assert config.spool.max_mb == 5.0
    assert config.graph().sinks["new"].use == "console"
    assert config.graph().sinks["last"].options == {"deep": {"er": 1}}


@pytest.mark.parametrize("path", ["transforms.checked.rules[1].max", "transforms.checked.rules.1.max"])
def test_an_override_reaches_into_a_list(file: Path, path: str) -> None:
    assert read(file, GOOD, f"{path}=9").graph().transforms["checked"].options["rules"] == [{"max": 1}, {"max": 9}]


@pytest.mark.parametrize("index", ["2", "-1", "x", "²"])
def test_an_index_that_a_list_does_not_have_is_refused(file: Path, index: str) -> None:
    (mistake,) = mistakes(file, GOOD, f"transforms.checked.rules.{index}=1")
    assert mistake == f"--set transforms.checked.rules.{index}: transforms.checked.rules.{index}: there are 2 items, numbered from 0"


def test_nothing_can_be_set_below_a_value(file: Path) -> None:
    (mistake,) = mistakes(file, GOOD, "name.x.y=1")
    assert mistake == "--set name.x.y: name: is a value, not a mapping; nothing can be set below it"


@pytest.mark.parametrize("text", ["batch.rows", "=5", "", "..=1"])
def test_an_override_has_a_path_and_a_value(file: Path, text: str) -> None:
    (mistake,) = mistakes(file, GOOD, text)
    assert mistake.endswith("expected path.to.key=value, such as batch.rows=1000")


def test_a_mistake_in_an_override_is_at_the_override(file: Path) -> None:
    environment = {"LAKEWARD__spool__max_mb": "much"}
    overrides = ("batch.rows=many", "batch.wiat=5s", "bach.rows=5", "plugins={allow: [5]}", "sinks.raw.from={a: 1}")
    assert sorted(mistakes(file, GOOD, *overrides[:4], environment=environment)) == [
        "--set bach.rows: bach: unknown option, did you mean 'batch'?",
        "--set batch.rows: batch.rows: expected a whole number, got text ('many')",
        "--set batch.wiat: batch.wiat: unknown option, did you mean 'wait'?",
        "--set plugins: plugins.allow[0]: expected text, got a whole number (5)",
        "environment variable LAKEWARD__spool__max_mb: spool.max_mb: expected a number, got text ('much')",
    ]
    assert mistakes(file, GOOD, overrides[4]) == ["--set sinks.raw.from: sinks.raw.from: expected node, node.port, or a list of them"]


@pytest.mark.parametrize("path", ["transforms.checked.rules[1]", "transforms.checked.rules.1"])
def test_an_overridden_item_has_the_place_of_the_override(file: Path, path: str) -> None:
    document = read(file, GOOD, f"{path}.max=9").document
    assert str(document.place(("transforms", "checked", "rules", 1, "max"))) == f"--set {path}.max"
    assert str(document.place(("transforms", "checked", "rules", 0, "max"))) == f"{file}:4:41"


def test_a_list_index_on_a_mapping_is_a_mistake_at_the_override(file: Path) -> None:
    (mistake,) = mistakes(file, GOOD, "sinks[0].use=x")
    assert mistake.startswith("--set sinks[0].use: sinks[0]: ")


def test_a_replaced_mapping_forgets_the_places_of_the_old_one(file: Path) -> None:
    config = read(file, GOOD, "sinks.raw={use: console}")
    assert str(config.document.place(("sinks", "raw", "path"))) == "--set sinks.raw"
    assert str(config.document.place(("sinks", "both"))) == f"{file}:8:9"


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_all_mistakes_are_given_at_once_each_at_its_place(file: Path) -> None:
    text = "name: 5\nsorce: {use: sqlite}\nsinks: [a]\nbatch:\n  rows: 0\n  wait: soon\n  row: 5\nspool: 7\n"
    assert sorted(mistakes(file, text)) == [
        "p.yaml:1:1: source: required, but missing",
        "p.yaml:1:7: name: expected text, got a whole number (5)",
        "p.yaml:2:1: sorce: unknown option, did you mean 'source'?",
        "p.yaml:3:8: sinks: expected a mapping, got a list",
        "p.yaml:5:9: batch.rows: expected from 1 to 1,000,000, got 0",
        "p.yaml:6:9: batch.wait: expected a duration such as 5s, 250ms, 10m or 1h, got text ('soon')",
        "p.yaml:7:3: batch.row: unknown option, did you mean 'rows'?",
        "p.yaml:8:8: spool: expected a mapping, got a whole number (7)",
    ]


def test_all_mistakes_of_the_nodes_are_given_at_once(file: Path) -> None:
    text = (
        "name: a b\nsource: {path: x}\ntransforms:\n  source: {use: x}\n  a.b: {use: 5}\n  good: {use: x, from: [1]}\n"
        "sinks:\n  good: {use: x}\n  -x: {use: x, from: 7}\n"
    )
    assert sorted(mistakes(file, text)) == [
        "p.yaml:1:7: name: expected letters, digits, - and _ (at most 64), got 'a b'",
        "p.yaml:2:9: source.use: required: the name of a plugin's component, such as sqlite",
        "p.yaml:4:3: transforms.source: expected a name of letters, digits, - and _ that is not `source`",
        "p.yaml:5:3: transforms.a.b: expected a name of letters, digits, - and _ that is not `source`",
        "p.yaml:5:9: transforms.a.b.use: required: the name of a plugin's component, such as sqlite",
        "p.yaml:6:24: transforms.good.from: expected node, node.port, or a list of them",
        "p.yaml:8:3: sinks.good: a transform has this name already; choose another",
        "p.yaml:9:22: sinks.-x.from: expected node, node.port, or a list of them",
        "p.yaml:9:3: sinks.-x: expected a name of letters, digits, - and _ that is not `source`",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: expected a mapping"),
        ("- a", "1:1: expected a mapping"),
        ("name: [", "2:1: not valid YAML"),
        ("hi", "1:1: expected a mapping"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(file: Path, text: str, message: str) -> None:
    (mistake,) = mistakes(file, text)
    assert mistake.startswith(f"p.yaml:{message}")


def test_a_file_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path}/no.yaml: cannot be read: No such file or directory$"):
        load(tmp_path / "no.yaml", (), {})


def test_a_pipeline_without_a_sink_is_refused(file: Path) -> None:
    assert mistakes(file, "name: x\nsource: {use: a}\n") == ["p.yaml:1:1: sinks: at least one sink is needed"]
    assert mistakes(file, "name: x\nsource: {use: a}\nsinks:\n") == ["p.yaml:3:7: sinks: expected a mapping, got nothing"]
    (mistake,) = mistakes(file, "name: x\nsource: {use: a}\npipelines:\n  raw: {transforms: {a: {use: b}}}\n")
    assert mistake == "p.yaml:4:8: pipelines.raw.sinks: at least one sink is needed"


@pytest.mark.parametrize("name", ["../up", "..", ".hidden", "a/b", "", "-a", "ü", "a" * 65, "a\\nb"])
def test_a_name_is_safe_as_a_folder(file: Path, name: str) -> None:
    (mistake,) = mistakes(file, GOOD.replace("environmental", f'"{name}"'))
    assert mistake.startswith("p.yaml:1:7: name: expected letters, digits, - and _ (at most 64), got ")


def test_a_secret_has_no_place_in_what_is_lakewards_own(file: Path) -> None:
    assert mistakes(file, GOOD, "batch.rows=${env:N}") == ["--set batch.rows: batch.rows: expected a whole number, got a secret"]


# -- several graphs ----------------------------------------------------------------------------------------------------


def test_one_of_several_graphs_is_selected(file: Path) -> None:
    config = read(file, SEVERAL + "select: raw")
    assert list(config.graphs) == ["raw", "filtered"]
    assert config.graph().name == "raw"
    assert config.graph("filtered").transforms["hot"].path == ("pipelines", "filtered", "transforms", "hot")
    assert read(file, SEVERAL, "select=filtered").graph().name == "filtered"


def test_without_a_selection_several_graphs_are_a_mistake_and_one_is_not(file: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"p.yaml:3:1: pipelines: several graphs and no `select`; add `select:` with one of raw, filtered"
    ):
        read(file, SEVERAL).graph()
    assert read(file, SEVERAL.rpartition("  filtered")[0]).graph().name == "raw"


@pytest.mark.parametrize(("text", "place"), [(SEVERAL + "select: row", "p.yaml:6:9"), (GOOD + "select: row", "p.yaml:11:9")])
def test_an_unknown_selection_names_what_there_is(file: Path, text: str, place: str) -> None:
    with pytest.raises(ConfigError, match=f"{place}: select: no graph named 'row'"):
        read(file, text).graph()


def test_several_graphs_and_one_at_the_top_do_not_go_together(file: Path) -> None:
    (mistake,) = mistakes(file, SEVERAL + "sinks: {a: {use: b}}")
    assert mistake == "p.yaml:3:1: pipelines: either `pipelines` or `transforms` and `sinks` at the top level, not both"
