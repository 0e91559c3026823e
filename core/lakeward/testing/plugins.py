"""What every plugin promises."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from types import ModuleType
from typing import Any

import attrs
import pluggy
import pytest

from lakeward import hookspecs
from lakeward.components import MEMBERS, Component

HEAVY = (
    "pyarrow", "numpy", "pandas", "polars", "duckdb", "boto3", "deltalake", "azure", "databricks", "h3", "httpx", "yaml",
)  # fmt: skip
"""What must not be imported before a pipeline names a component. attrs, cattrs and pluggy come with lakeward itself."""
STATEFUL = ("state", "restore", "finish")
ANNOUNCE = """
import importlib, json, sys
before = set(sys.modules)
module = importlib.import_module(sys.argv[1])
list(getattr(module, "lakeward_components", list)())
list(getattr(module, "lakeward_commands", list)())
print(json.dumps(sorted(set(sys.modules) - before)))
"""


class PluginContract:
    """Subclass it as `class TestMine(PluginContract)`, name the module of the entry point, and each promise below becomes a test."""

    module: str
    """The module that the entry point names, such as `lakeward_plugins.sinks`."""

    def test_announcing_imports_nothing_heavy(self) -> None:
        """Importing the module and asking what it has stays cheap: no Arrow, no client library."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(  # noqa: S603  # our own interpreter and script
            [sys.executable, "-c", ANNOUNCE, self.module], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, f"importing and announcing {self.module} fails:\n{done.stderr}"
        imported = json.loads(done.stdout.splitlines()[-1])
        heavy = sorted({name.partition(".")[0] for name in imported} & set(HEAVY))
        assert not heavy, f"importing {self.module} imports {', '.join(heavy)}; import them where the class is"

    def test_api_version_is_one_we_have(self) -> None:
        """`LAKEWARD_API` asks for this major version and no newer minor."""
        match getattr(self._load(), "LAKEWARD_API", None):
            case (int(major), int(minor)):
                known = major == hookspecs.API[0] and minor <= hookspecs.API[1]
                assert known, f"LAKEWARD_API is {(major, minor)}; lakeward has {hookspecs.API}"
            case other:
                raise AssertionError(f"{self.module} has no LAKEWARD_API = (major, minor), but {other}")

    def test_hooks_are_known(self) -> None:
        """Every hook of the module is one of lakeward's, with arguments that it gives."""
        manager = pluggy.PluginManager("lakeward")
        manager.add_hookspecs(hookspecs)
        try:
            manager.register(self._load())
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise AssertionError(str(error)) from error
        assert manager.get_hookcallers(self._load()), f"{self.module} has no hook: mark its functions with @lakeward.hookimpl"

    def test_names_are_lower_snake_case(self) -> None:
        """Components are named as one writes them in YAML, each name once for each kind."""
        names = [(component.kind, component.name) for component in self._components()]
        wrong = [name for _, name in names if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)]
        assert not wrong, f"not lower_snake_case: {', '.join(map(repr, wrong))}"
        assert len(set(names)) == len(names), f"announced twice: {sorted(name for name in names if names.count(name) > 1)[0]}"

    def test_summaries_are_one_sentence(self) -> None:
        """A summary is one line that ends with a full stop."""
        wrong = [c.name for c in self._components() if not re.fullmatch(r"\S.*\S\.", c.summary)]
        assert not wrong, f"the summary is not one line with a full stop: {', '.join(wrong)}"

    def test_classes_are_attrs_classes_with_the_members_of_their_kind(self) -> None:
        """The target of each component can be imported and has what the contract of its kind names."""
        for component in self._components():
            cls = _target(component)
            assert attrs.has(cls), f"{component.target} is no attrs class"
            lost = [member for member in MEMBERS[component.kind] if not _has(cls, member)]
            assert not lost, f"{component.target} is a {component.kind} without {', '.join(lost)}"
            if component.kind == "transform":
                some = [member for member in STATEFUL if _has(cls, member)]
                assert len(some) in (0, len(STATEFUL)), f"{component.target} has {', '.join(some)}, but a state needs {', '.join(STATEFUL)}"

    def test_every_option_has_help(self) -> None:
        """Every init field is made with `option` and says in a sentence what it is for."""
        wrong = [
            f"{component.name}.{attribute.name}"
            for component in self._components()
            for attribute in attrs.fields(_target(component))
            if attribute.init and len(str(attribute.metadata.get("help", "")).split()) < 2
        ]
        assert not wrong, f"no help sentence of two words or more: {', '.join(wrong)}"

    # -- how -----------------------------------------------------------------------------------------------------------

    def _load(self) -> ModuleType:
        return importlib.import_module(self.module)

    def _components(self) -> list[Component]:
        announce = getattr(self._load(), "lakeward_components", None)
        components = list(announce()) if announce else []
        wrong = [component for component in components if not isinstance(component, Component)]
        assert not wrong, f"lakeward_components() gives {wrong[0]!r}, not a Component"
        return components


def _target(component: Component) -> type[Any]:
    module, _, name = component.target.partition(":")
    assert name, f"the target {component.target!r} is not package.module:Class"
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        ours = module == error.name or module.startswith(f"{error.name}.")
        if component.extra and not ours:
            pytest.skip(f"needs {component.extra}: {error}")
        raise AssertionError(f"the target {component.target} of {component.name} cannot be imported: {error}") from error
    assert isinstance(found, type), f"{module} has no class {name}"
    return found


def _has(cls: type[Any], member: str) -> bool:
    """A method, property or class attribute, or a field of instances."""
    return hasattr(cls, member) or member in {attribute.name for attribute in attrs.fields(cls)}
