"""YAML text to plain data, remembering where each value was written.

Safe against what a file can do: size, depth, number of nodes and aliases are bounded, duplicate keys and recursion are
refused. Plain scalars follow the YAML 1.2 core schema: `no` is text, `1e3` is a number, `12:30:45` is text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from attrs import field, frozen

from lakeward.errors import ConfigError, Place, Problem
from lakeward.secrets import SecretReference
from lakeward.yamlfile.build import Step

MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_ALIASES = 256 * 1024, 20, 20_000, 50
TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
INT = re.compile(r"[-+]?[0-9]{1,4000}")  # Python refuses more digits
BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
WORDS = {"null": None, "true": True, "false": False, ".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
SPECIAL = {"": None, "~": None, ".NaN": math.nan} | {
    form: value for word, value in WORDS.items() for form in (word, word.title(), word.upper())
}
REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?|([a-z][a-z0-9_]*):(?!-)([^}]+))\}|\$\{")
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Route = tuple[Step, ...]


@frozen
class Document:
    """Data and, for the path of each value, where its key and where the value itself was written."""

    data: Any
    places: dict[Route, tuple[Place, Place]] = field(repr=False)

    def place(self, path: Route, at_key: bool = False) -> Place:
        """The place of the value at `path`, or of the nearest thing around it that was written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]][0 if at_key and length == len(path) else 1]
        return Place("?")


def read_document(file: Path, environment: Mapping[str, str]) -> Document:
    """The document in a file. Raises ConfigError."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise _mistake(Place(str(file)), f"cannot be read: {error.strerror or error}") from error
    return parse(raw, str(file), environment)


def parse(raw: bytes | str, name: str, environment: Mapping[str, str], fixed: Place | None = None) -> Document:
    """The document in a text. With `fixed`, everything in it was written at that one place."""
    try:
        if len(raw) > MAX_BYTES:
            raise _mistake(Place(name), f"larger than {MAX_BYTES // 1024} KiB; a pipeline is a small file")
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
        _check_events(text, name, fixed)
        root = yaml.compose(text, Loader=Loader)
        reader = _Reader(name, environment, fixed)
        data = reader.read(root, (), None) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        quoting = "; inside {...} a value with ${...} needs quotes" if mark and "${" in _line(raw, mark.line) else ""
        place = fixed or _at(name, mark)
        problem = str(error.problem or error.context).replace("exceeded maximum nesting depth", TOO_DEEP)
        raise _mistake(place, f"not valid YAML: {problem}{quoting}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _mistake(fixed or Place(name), f"not valid YAML: {str(error).splitlines()[0]}") from error
    if reader.problems:
        raise ConfigError(reader.problems)
    return Document(data, reader.places)


def _mistake(place: Place, message: str) -> ConfigError:
    return ConfigError([Problem(place, "", message)])


def _at(name: str, mark: Any) -> Place:
    return Place(name, mark.line + 1, mark.column + 1) if mark else Place(name)


def _line(raw: bytes | str, number: int) -> str:
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    lines = text.splitlines()
    return lines[number] if number < len(lines) else ""


def _check_events(text: str, name: str, fixed: Place | None) -> None:
    """Refuse bombs and tags by their events, before anything recursive touches them."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > MAX_DEPTH or aliases > MAX_ALIASES:
            limit = TOO_DEEP if depth > MAX_DEPTH else f"more than {MAX_ALIASES} aliases"
            raise _mistake(fixed or _at(name, event.start_mark), limit)
        if getattr(event, "tag", None):
            raise _mistake(fixed or _at(name, event.start_mark), "a tag (!) means nothing here; remove it, and quote what is text")


class _Reader:
    """Walks the nodes once: data, places and mistakes."""

    def __init__(self, name: str, environment: Mapping[str, str], fixed: Place | None) -> None:
        self.places: dict[Route, tuple[Place, Place]] = {}
        self.problems: list[Problem] = []
        self._name, self._environment, self._fixed = name, environment, fixed
        self._open: set[int] = set()
        self._nodes = 0

    def read(self, node: yaml.Node, path: Route, key: yaml.Node | None) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ConfigError([Problem(self._place(node), "", f"more than {MAX_NODES} values, counting aliases")])
        if id(node) in self._open:
            raise ConfigError([Problem(self._place(node), dotted(path), "an alias that contains itself")])
        self.places[path] = (self._place(key or node), self._place(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.read(item, (*path, index), None) for index, item in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.Node, path: Route) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(key, path, "a key must be text")
            elif key.value in data:
                self._problem(key, (*path, key.value), "written twice; remove one")
            else:
                data[key.value] = self.read(value, (*path, key.value), key)
        return data

    def _scalar(self, node: yaml.ScalarNode, path: Route) -> Any:
        try:
            text = self._expand(node.value)
        except ValueError as error:
            self._problem(node, path, str(error))
            return None
        if isinstance(text, SecretReference):
            return text
        return text if node.style else _plain(text)

    def _expand(self, text: str) -> str | SecretReference:
        whole = REFERENCE.fullmatch(text)
        if whole and whole[3]:
            return SecretReference(whole[3], whole[4])

        def value(match: re.Match[str]) -> str:
            variable, default, scheme = match[1], match[2], match[3]
            if match[0] == "$${":
                return "${"
            if match[0] == "${":
                raise ValueError("expected ${NAME}, ${NAME:-default} or ${scheme:ref}; write $${ for the text ${")
            if scheme:
                raise ValueError(f"${{{scheme}:...}} is a secret and must be the whole value")
            found = self._environment.get(variable)
            if found is None and default is None:
                raise ValueError(
                    f"environment variable {variable} is not set and has no default (write ${{{variable}:-default}} to give one)"
                )
            return found if found is not None else default

        return REFERENCE.sub(value, text)

    def _place(self, node: yaml.Node) -> Place:
        return self._fixed or _at(self._name, node.start_mark)

    def _problem(self, node: yaml.Node, path: Route, message: str) -> None:
        self.problems.append(Problem(self._place(node), dotted(path), message))


def _plain(text: str) -> Any:
    """A plain scalar by the YAML 1.2 core schema."""
    if text in SPECIAL:
        return SPECIAL[text]
    if INT.fullmatch(text):
        return int(text)
    if BASED.fullmatch(text):
        return int(text, 0)
    number = float(text) if FLOAT.fullmatch(text) else math.inf
    return number if math.isfinite(number) else text


def dotted(path: Route) -> str:
    """`("rules", 2, "fail")` as `rules[2].fail`."""
    return "".join(_dotted(path))


def _dotted(path: Route) -> Iterator[str]:
    for index, step in enumerate(path):
        yield f"[{step}]" if isinstance(step, int) else f".{step}" if index else step
