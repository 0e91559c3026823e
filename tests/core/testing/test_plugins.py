"""`PluginContract` fails for a plugin that is broken in just that way, and passes for one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakeward.testing import PluginContract

PLUGIN = """
from lakeward import Component, hookimpl

LAKEWARD_API = (1, 0)

@hookimpl
def lakeward_components():
    return [Component("sink", "night_owl", "MODULE_owl:Owl", "Hoots at night.", extra="owl")]
"""
CLASSES = """
from attrs import define, field
from lakeward import Encoding, option

@define
class Owl:
    volume: int = option(3, help="How loud it hoots.")
    hoots: int = field(default=0, init=False)
    encoding = Encoding()
    ports, row_wise, apply, restore = ("main",), True, None, None  # what makes it a transform with half a state as well

    def deliver(self, parcel):
        pass

    def close(self):
        pass
"""
BROKEN = [
    ("import sys", "import numpy", "test_announcing_imports_nothing_heavy", "imports numpy"),
    ("return [", "import pyarrow.parquet; return [", "test_announcing_imports_nothing_heavy", "imports .*pyarrow"),
    ("import sys", "import not_there", "test_announcing_imports_nothing_heavy", "fails:\n(.*\n)*.*No module named 'not_there'"),
    ("LAKEWARD_API = (1, 0)", "", "test_api_version_is_one_we_have", "has no LAKEWARD_API"),
    ("(1, 0)", "(1, 99)", "test_api_version_is_one_we_have", "LAKEWARD_API is \\(1, 99\\)"),
    ("(1, 0)", "(2, 0)", "test_api_version_is_one_we_have", "LAKEWARD_API is \\(2, 0\\)"),
    ("lakeward_components()", "lakeward_component()", "test_hooks_are_known", "unknown hook 'lakeward_component'"),
    ("lakeward_components()", "lakeward_components(config)", "test_hooks_are_known", "config"),
    ("@hookimpl", "", "test_hooks_are_known", "has no hook"),
    ("night_owl", "NightOwl", "test_names_are_lower_snake_case", "'NightOwl'"),
    ("night_owl", "night-owl", "test_names_are_lower_snake_case", "'night-owl'"),
    ("return [", "return 2 * [", "test_names_are_lower_snake_case", "announced twice: .*night_owl"),
    ("Hoots at night.", "Hoots at night", "test_summaries_are_one_sentence", "night_owl"),
    ("Hoots at night.", "Hoots\\nat night.", "test_summaries_are_one_sentence", "night_owl"),
    ("_owl:Owl", "_bird:Owl", "test_classes_are_attrs_classes_with_the_members_of_their_kind", "cannot be imported"),
    (":Owl", ":Eagle", "test_classes_are_attrs_classes_with_the_members_of_their_kind", "has no class Eagle"),
    ("@define", "", "test_classes_are_attrs_classes_with_the_members_of_their_kind", "no attrs class"),
    ("def deliver", "def hoot", "test_classes_are_attrs_classes_with_the_members_of_their_kind", "is a sink without deliver"),
    ('"sink"', '"source"', "test_classes_are_attrs_classes_with_the_members_of_their_kind", "is a source without schema, read"),
    ('"sink", ', '"transform", ', "test_classes_are_attrs_classes_with_the_members_of_their_kind", "has restore, but a state needs state"),
    ('option(3, help="How loud it hoots.")', "3", "test_every_option_has_help", "no help sentence of two words or more: night_owl.volume"),
    ('"How loud it hoots."', '""', "test_every_option_has_help", "no help sentence of two words or more: night_owl.volume"),
]


def suite_for(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, old: str = "", new: str = "") -> PluginContract:
    """The suite of the plugin above, with `old` replaced by `new` in its two files; `name` must be new in this process."""
    for file, text in ((name, PLUGIN), (f"{name}_owl", CLASSES)):
        text = "import sys\n" + text
        changed = text.replace(old, new) if old else text
        (folder / f"{file}.py").write_text(changed.replace("MODULE", name))
    monkeypatch.syspath_prepend(folder)
    suite = PluginContract()
    suite.module = name
    return suite


@pytest.mark.parametrize("index", range(len(BROKEN)), ids=lambda index: f"{BROKEN[index][2].removeprefix('test_')}-{index}")
def test_catches_a_broken_plugin(index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, promise, says = BROKEN[index]
    suite = suite_for(tmp_path, f"broken_plugin_{index}", monkeypatch, old, new)
    with pytest.raises(AssertionError, match=says):
        getattr(suite, promise)()


PROMISES = sorted(name for name in dir(PluginContract) if name.startswith("test_"))


@pytest.mark.parametrize("promise", PROMISES)
def test_passes_a_plugin_that_keeps_its_promises(promise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    getattr(suite_for(tmp_path, f"good_plugin_{promise}", monkeypatch), promise)()


def test_every_promise_is_broken_by_some_plugin() -> None:
    assert {promise for _, _, promise, _ in BROKEN} == set(PROMISES)


def test_skips_a_component_whose_extra_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = suite_for(tmp_path, "plugin_with_extra", monkeypatch, "from attrs import", "import not_installed\nfrom attrs import")
    with pytest.raises(pytest.skip.Exception, match="needs owl: No module named 'not_installed'"):
        suite.test_every_option_has_help()
