from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from lakeward.plugins import Plugin, PluginError, Plugins, load_plugins
from lakeward.secrets import Secret

HEAD = "from lakeward import Component, hookimpl\nLAKEWARD_API = (1, 0)\n"
GOOD = (
    HEAD
    + """
@hookimpl
def lakeward_components():
    return [Component("sink", "{name}", "{module}:Thing", "A thing.", extra="{extra}")]
class Thing: ...
"""
)
HEARD = (
    HEAD
    + """
heard = []
@hookimpl
def lakeward_run_finished(run, result):
    heard.append(result)
"""
)
Install = Callable[..., Path]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are installed into, on the path of this process."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delenv("LAKEWARD_DISABLE_PLUGINS", raising=False)
    return tmp_path / "site"


def install(site: Path, name: str, source: str, *, distribution: str = "", version: str = "1.2") -> None:
    """A distribution with one plugin, as pip would leave it."""
    module, distribution = f"lwtest_{name}", distribution or f"lakeward-{name}"
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(source.replace("{module}", module).replace("{name}", name).replace("{extra}", f"{distribution}[x]"))
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    with (info / "entry_points.txt").open("a") as entries:
        entries.write(f"[lakeward]\n{name} = {module}\n")
    importlib.invalidate_caches()
    sys.modules.pop(module, None)


def load(site: Path, **rules: list[str]) -> Plugins:
    """Only what is installed in the folder, so that the tests do not depend on the rest of the machine."""
    entries = [entry for found in Distribution.discover(path=[str(site)]) for entry in found.entry_points.select(group="lakeward")]
    return load_plugins(entries=entries, **rules)


def only(plugins: Plugins) -> Plugin:
    (plugin,) = plugins.found
    return plugin


def refusal(plugins: Plugins, use: str) -> str:
    with pytest.raises(PluginError) as caught:
        plugins.load(*plugins.find("sink", use))
    return str(caught.value)


# -- good ones ---------------------------------------------------------------------------------------------------------


def test_an_installed_plugin_is_found_and_its_class_loaded_when_named(site: Path) -> None:
    install(site, "thing", GOOD)
    plugins = load(site)
    plugin, component = plugins.find("sink", "thing")
    assert (plugin.name, plugin.origin, plugin.status, component.summary) == ("thing", "lakeward-thing 1.2", "ready", "A thing.")
    assert plugins.find("sink", "thing/thing") == (plugin, component)
    assert plugins.load(plugin, component).__name__ == "Thing"


# -- broken ones -------------------------------------------------------------------------------------------------------

HOOK = HEAD + "@hookimpl\n"
BROKEN = {
    "missing module": ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
    "syntax": ("def broken(:\n", "SyntaxError: invalid syntax"),
    "exits": ("import sys\nsys.exit('bye')\n", "SystemExit: bye"),
    "raises": (HOOK + "def lakeward_components():\n    raise RuntimeError('boom\\nmore')\n", "RuntimeError: boom"),
    "lazily raises": (HOOK + "def lakeward_components():\n    yield 1 / 0\n", "ZeroDivisionError: division by zero"),
    "wrong hook": (HOOK + "def lakeward_component(): ...\n", "unknown hook lakeward_component(), did you mean lakeward_components()?"),
    "strange hook": (HOOK + "def zzz(): ...\n", "unknown hook zzz()"),
    "wrong arguments": (
        HOOK + "def lakeward_run_started(run, colour): ...\n",
        "hook 'lakeward_run_started'; hookimpl definition: lakeward_run_started(run, colour)",
    ),
    "no list": (HOOK + "def lakeward_components():\n    return 5\n", "TypeError"),
    "no component": (
        HOOK + "def lakeward_components():\n    return ['sink']\n",
        "lakeward_components() gives 'sink', which is no Component",
    ),
}
INCOMPATIBLE = {
    "no API": ("import lakeward\n", "does not say LAKEWARD_API = (1, 0)"),
    "odd API": ("LAKEWARD_API = '1.0'\n", "does not say LAKEWARD_API = (1, 0)"),
    "next major": ("LAKEWARD_API = (2, 0)\n", "needs plugin API 2.0; this lakeward offers 1.0"),
    "newer minor": ("LAKEWARD_API = (1, 99)\n", "needs plugin API 1.99; this lakeward offers 1.0"),
    "older major": ("LAKEWARD_API = (0, 0)\n", "needs plugin API 0.0; this lakeward offers 1.0"),
}
UNREADY = {name: (source, "broken", message) for name, (source, message) in BROKEN.items()}
UNREADY |= {name: (source, "incompatible", message) for name, (source, message) in INCOMPATIBLE.items()}


@pytest.mark.parametrize(("source", "status", "message"), UNREADY.values(), ids=UNREADY)
def test_a_broken_plugin_is_reported_and_the_others_work(site: Path, source: str, status: str, message: str) -> None:
    install(site, "bad", source)
    install(site, "good", GOOD)
    install(site, "also", GOOD)
    plugins = load(site)
    bad = next(plugin for plugin in plugins.found if plugin.name == "bad")
    assert bad.status == status
    assert message in bad.message
    assert "\n" not in bad.message
    assert [component.name for _, component in plugins.components()] == ["also", "good"]
    assert plugins.load(*plugins.find("sink", "good")).__name__ == "Thing"
    assert f"plugin bad is {status} ({bad.message})" in refusal(plugins, "parquet")


def test_what_a_broken_plugin_announced_before_it_broke_is_not_offered(site: Path) -> None:
    install(site, "bad", GOOD + "@hookimpl\ndef lakeward_commands():\n    raise RuntimeError('later')\n" + HEARD.removeprefix(HEAD))
    plugins = load(site)
    assert list(plugins.components()) == []
    assert plugins.manager.hook.lakeward_run_finished.get_hookimpls() == []


def test_a_message_of_a_broken_plugin_hides_secrets(site: Path) -> None:
    Secret("pl4in-s3cret", "env:X")
    install(site, "bad", "raise RuntimeError('token pl4in-s3cret')\n")
    assert only(load(site)).message == "RuntimeError: token ***"


# -- finding -----------------------------------------------------------------------------------------------------------


def test_of_two_components_with_one_name_neither_wins_and_the_full_name_chooses(site: Path) -> None:
    install(site, "one", GOOD.replace("{name}", "table"), distribution="lakeward-one")
    install(site, "two", GOOD.replace("{name}", "table"), distribution="lakeward-two")
    plugins = load(site)
    both = "one/table (lakeward-one 1.2), two/table (lakeward-two 1.2)"
    assert refusal(plugins, "table") == f"sink 'table' is ambiguous: {both}; write one of these in full, or disable a plugin"
    assert plugins.load(*plugins.find("sink", "two/table")).__module__ == "lwtest_two"
    assert load(site, disable=["one"]).find("sink", "table")[0].name == "two"


def test_two_plugins_with_one_name_both_work(site: Path) -> None:
    install(site, "same", GOOD.replace("{name}", "a") + HEARD.removeprefix(HEAD))
    install(site, "other", GOOD.replace("{name}", "b"), distribution="lakeward-other")
    (site / "lakeward_other-1.2.dist-info" / "entry_points.txt").write_text("[lakeward]\nsame = lwtest_other\n")
    plugins = load(site)
    assert [plugin.status for plugin in plugins.found] == ["ready", "ready"]
    assert [component.name for _, component in plugins.components()] == ["a", "b"]
    assert len(plugins.manager.hook.lakeward_run_finished.get_hookimpls()) == 1


def test_an_unknown_name_gets_a_guess_or_all_names(site: Path) -> None:
    install(site, "parquet", GOOD)
    install(site, "delta", GOOD)
    plugins = load(site)
    assert refusal(plugins, "parqet") == "no sink named 'parqet'; did you mean 'parquet'?"
    assert refusal(plugins, "x") == "no sink named 'x'; there are delta, parquet"
    assert refusal(plugins, "other/delta") == "no sink named 'other/delta'; did you mean 'delta'?"
    with pytest.raises(PluginError, match=r"^no source named 'parquet'; none is installed$"):
        plugins.find("source", "parquet")


# -- loading classes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("import no_such_library\n", ":Thing", "cannot be imported: No module named 'no_such_library'; try: pip install 'lakeward-x[x]'"),
        ("raise RuntimeError('boom')\n", ":Thing", "cannot be imported: boom"),
        ("import sys\nsys.exit(3)\n", ":Thing", "cannot be imported: 3"),
        ("", ":Thing", "cannot be imported: module 'lwtest_heavy' has no attribute 'Thing'"),
        ("", "", "cannot be imported: "),
        ("Thing = 5\n", ":Thing", "lwtest_heavy:Thing is not a class"),
        ("def Thing(): ...\n", ":Thing", "lwtest_heavy:Thing is not a class"),
    ],
)
def test_a_class_that_cannot_be_had_names_the_distribution_and_what_to_do(site: Path, source: str, target: str, message: str) -> None:
    install(site, "x", GOOD.replace("{module}:Thing", f"lwtest_heavy{target}"))
    (site / "lwtest_heavy.py").write_text(source)
    sys.modules.pop("lwtest_heavy", None)
    told = refusal(load(site), "x")
    assert told.startswith("sink 'x' of lakeward-x 1.2")
    assert message in told
    assert ("pip install" in told) == ("no_such_library" in source)


# -- switching off -----------------------------------------------------------------------------------------------------


def test_a_plugin_can_be_switched_off_by_environment_and_by_the_file(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        install(site, name, GOOD)
    monkeypatch.setenv("LAKEWARD_DISABLE_PLUGINS", " a, ,zzz,")
    plugins = load(site, disable=["b"])
    assert [(plugin.name, plugin.status, plugin.message) for plugin in plugins.found] == [
        ("a", "disabled", "switched off"), ("b", "disabled", "switched off"), ("c", "ready", ""),
    ]  # fmt: skip
    assert "lwtest_a" not in sys.modules
    assert "plugin a is disabled (switched off)" in refusal(plugins, "a")


def test_with_an_allow_list_only_it_and_our_own_take_part(site: Path) -> None:
    install(site, "a", GOOD)
    install(site, "b", GOOD, distribution="team-plugins")
    install(site, "c", "raise SystemExit", distribution="stranger")
    install(site, "d", GOOD, distribution="lakeward")
    found = {plugin.name: plugin.status for plugin in load(site, allow=["a", "team-plugins"]).found}
    assert found == {"a": "ready", "b": "ready", "c": "disabled", "d": "ready"}
    assert "lwtest_c" not in sys.modules
    assert load(site, allow=["a"], disable=["a"]).found[0].status == "disabled"
    assert {plugin.name for plugin in load(site, allow=[]).found if plugin.status == "ready"} == {"d"}


# -- observers ---------------------------------------------------------------------------------------------------------


def test_an_observer_that_fails_keeps_no_other_from_hearing_and_leaks_nothing(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    Secret("0bserver-s3cret", "env:X")
    for name in ("a", "c"):
        install(site, name, HEARD)
    install(site, "b", HEAD + "@hookimpl\ndef lakeward_run_finished():\n    raise OSError('token 0bserver-s3cret')\n")
    with caplog.at_level(logging.ERROR):
        load(site).notify("lakeward_run_finished", run=1, result=2)
    assert [sys.modules[f"lwtest_{name}"].heard for name in ("a", "c")] == [[2], [2]]
    assert [record.getMessage() for record in caplog.records] == [
        "plugin b (lakeward-b 1.2) failed in lakeward_run_finished: OSError: token ***"
    ]


# -- the command line --------------------------------------------------------------------------------------------------


def test_plugins_list_shows_all_and_succeeds_with_broken_ones(site: Path) -> None:
    install(site, "thing", GOOD)
    for name, (source, _, _) in UNREADY.items():
        install(site, f"bad_{name.replace(' ', '_').lower()}", source)
    install(site, "off", GOOD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)]), "LAKEWARD_DISABLE_PLUGINS": "off"}
    script = [sys.executable, "-c", "from lakeward.cli import main; main()", "plugins", "list"]
    shown = subprocess.run(script, capture_output=True, text=True, env=environment, check=True)
    assert shown.stderr == ""
    lines = {line.split()[0]: line for line in shown.stdout.splitlines()}
    assert all(word in lines["thing"] for word in ("sink", "lakeward-thing 1.2", "A thing."))
    assert "[disabled]" in lines["off"]
    for name, (_, status, message) in UNREADY.items():
        line = lines[f"bad_{name.replace(' ', '_').lower()}"]
        assert f"[{status}]" in line
        assert message in line
    listed = json.loads(subprocess.run([*script, "--json"], capture_output=True, text=True, env=environment, check=True).stdout)
    assert {"name": "thing", "kind": "sink", "plugin": "thing", "distribution": "lakeward-thing 1.2", "summary": "A thing."} in listed
