"""Find plugins, list them, load classes when a pipeline names them, and refuse clearly.

One broken plugin never breaks the rest: unused, it is a line in `lakeward plugins list`; used, an error that names its
distribution. Nothing here knows a particular plugin.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Literal

import pluggy
from attrs import field, frozen, mutable

from lakeward import hookspecs
from lakeward.components import Component, Kind
from lakeward.errors import LakewardError
from lakeward.secrets import redact

GROUP = "lakeward"
log = logging.getLogger("lakeward.plugins")


class PluginError(LakewardError):
    """A component cannot be had; the message says from which distribution and what to do."""


@mutable
class Plugin:
    """One entry point, and what became of it."""

    name: str
    distribution: str
    version: str
    status: Literal["ready", "broken", "incompatible", "disabled"] = "ready"
    message: str = ""
    components: list[Component] = field(factory=list)
    commands: list[Any] = field(factory=list)

    @property
    def origin(self) -> str:
        """`lakeward-h3 0.1.0`, for messages."""
        return f"{self.distribution} {self.version}"

    @property
    def title(self) -> str:
        """`h3 (lakeward-h3 0.1.0)`; unlike the name alone it is unique."""
        return f"{self.name} ({self.origin})"


@frozen
class Plugins:
    """All plugins that were found, and the hooks of those that are ready."""

    found: Sequence[Plugin]
    manager: pluggy.PluginManager

    def components(self) -> Iterator[tuple[Plugin, Component]]:
        """Every announced component with its plugin, by kind and name."""
        pairs = ((plugin, component) for plugin in self.found for component in plugin.components)
        yield from sorted(pairs, key=lambda pair: (pair[1].kind, pair[1].name, pair[0].name))

    def find(self, kind: Kind, use: str) -> tuple[Plugin, Component]:
        """The component that `use: NAME` or `use: PLUGIN/NAME` means. Raises PluginError, with a guess."""
        wanted_plugin, _, name = use.rpartition("/")
        of_kind = [(plugin, component) for plugin, component in self.components() if component.kind == kind]
        matches = [pair for pair in of_kind if pair[1].name == name and wanted_plugin in ("", pair[0].name)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            both = ", ".join(f"{plugin.name}/{name} ({plugin.origin})" for plugin, _ in matches)
            raise PluginError(f"{kind} {name!r} is ambiguous: {both}; write one of these in full, or disable a plugin")
        names = sorted({component.name for _, component in of_kind})
        guess = get_close_matches(name, names, 1)
        hint = f"did you mean {guess[0]!r}?" if guess else f"there are {', '.join(names)}" if names else "none is installed"
        unready = [f"{plugin.name} is {plugin.status} ({plugin.message})" for plugin in self.found if plugin.status != "ready"]
        raise PluginError(f"no {kind} named {use!r}; {hint}" + (f"; plugin {'; plugin '.join(unready)}" if unready else ""))

    def load(self, plugin: Plugin, component: Component) -> type:
        """Import the class behind a component. Raises PluginError that says what to install or whom to ask."""
        module, _, name = component.target.partition(":")
        try:
            cls = getattr(import_module(module), name)
        except (Exception, SystemExit) as error:  # a third party's module may raise anything
            install = f"; try: pip install '{component.extra}'" if component.extra and isinstance(error, ImportError) else ""
            raise PluginError(f"{component.kind} {component.name!r} of {plugin.origin} cannot be imported: {error}{install}") from error
        if not isinstance(cls, type):
            raise PluginError(f"{component.kind} {component.name!r} of {plugin.origin}: {component.target} is not a class")
        return cls

    def notify(self, hook: str, **values: object) -> None:
        """Tell each plugin by itself, so that one that fails keeps no other from hearing; errors are only logged."""
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                implementation.function(*(values[name] for name in implementation.argnames))
            except (Exception, SystemExit) as error:  # noqa: BLE001  # observers must not stop the rows
                log.error("plugin %s failed in %s: %s", implementation.plugin_name, hook, redact(f"{type(error).__name__}: {error}"))


def load_plugins(
    *, allow: Collection[str] | None = None, disable: Collection[str] = (), entries: Iterable[EntryPoint] | None = None
) -> Plugins:
    """Load what is installed: all, or those in `allow`, without those in `disable` and in `LAKEWARD_DISABLE_PLUGINS`.

    `allow` names plugins or distributions; our own distribution is always allowed.
    """
    off = {*disable, *filter(None, os.environ.get("LAKEWARD_DISABLE_PLUGINS", "").replace(" ", "").split(","))}
    manager = pluggy.PluginManager("lakeward")
    manager.add_hookspecs(hookspecs)
    loader = _Loader(manager)
    found: list[Plugin] = []
    for entry in sorted(entry_points(group=GROUP) if entries is None else entries, key=lambda entry: (entry.name, entry.value)):
        plugin = Plugin(entry.name, entry.dist.name if entry.dist else "?", entry.dist.version if entry.dist else "?")
        found.append(plugin)
        if entry.name in off:
            plugin.status, plugin.message = "disabled", "switched off"
        elif allow is not None and plugin.distribution != "lakeward" and not {entry.name, plugin.distribution} & set(allow):
            plugin.status, plugin.message = "disabled", "not in plugins.allow"
        else:
            loader.load(plugin, entry)
    known = {name for plugin in found for name in (plugin.name, plugin.distribution)}
    for name in sorted({*off, *(allow or ())} - known):
        guess = get_close_matches(name, known, 1)
        log.warning("no plugin is named %r%s", name, f", did you mean {guess[0]!r}?" if guess else "; `lakeward plugins list` shows all")
    return Plugins(found, manager)


class _Loader:
    """Registers plugins one at a time; historic hooks answer during registration, so each answer has a known author."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager
        self._answers: dict[str, list[Any]] = {"lakeward_components": [], "lakeward_commands": []}
        for name, answers in self._answers.items():
            getattr(manager.hook, name).call_historic(kwargs={}, result_callback=answers.extend)

    def load(self, plugin: Plugin, entry: EntryPoint) -> None:
        for answers in self._answers.values():
            answers.clear()
        try:
            module = entry.load()
            if problem := _incompatible(module):
                plugin.status, plugin.message = "incompatible", problem
                return
            self._manager.register(module, plugin.title)
            if unknown := self._unknown_hook(module):
                raise PluginError(unknown)
            strange = [each for each in self._answers["lakeward_components"] if not isinstance(each, Component)]
            if strange:
                raise PluginError(f"lakeward_components() gives {strange[0]!r}, which is no Component")
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a third party's module may raise anything
            if self._manager.has_plugin(plugin.title):
                self._manager.unregister(name=plugin.title)
            plugin.status, plugin.message = "broken", redact(_in_one_line(error))
            return
        plugin.components.extend(self._answers["lakeward_components"])
        plugin.commands.extend(self._answers["lakeward_commands"])

    def _unknown_hook(self, module: ModuleType) -> str:
        known = [name for name in vars(hookspecs) if name.startswith("lakeward_")]
        for caller in self._manager.get_hookcallers(module) or ():
            if not caller.has_spec():
                guess = get_close_matches(caller.name, known, 1)
                return f"unknown hook {caller.name}()" + (f", did you mean {guess[0]}()?" if guess else "")
        return ""


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, (PluginError, pluggy.PluginValidationError)):  # pluggy gives its reason in the last line
        return "; ".join(str(error).splitlines())
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _incompatible(module: ModuleType) -> str:
    wanted = getattr(module, "LAKEWARD_API", None)
    if not (isinstance(wanted, tuple) and len(wanted) == 2 and all(isinstance(part, int) for part in wanted)):
        return f"{module.__name__} does not say LAKEWARD_API = {hookspecs.API}"
    major, minor = wanted
    if major != hookspecs.API[0] or minor > hookspecs.API[1]:
        return f"needs plugin API {major}.{minor}; this lakeward offers {hookspecs.API[0]}.{hookspecs.API[1]}"
    return ""
