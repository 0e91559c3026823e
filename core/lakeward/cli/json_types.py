"""From the types of options to JSON Schema, draft 2020-12, for editors.

Wherever a value can come from an environment variable, a text with `${NAME}` is right as well; a secret must be `${scheme:ref}`.
What it cannot say is left to `lakeward check`: limits of durations with a unit, and all that depends on the data.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from lakeward.options import PLAIN, init_fields, is_union
from lakeward.secrets import Secret, SecretReference

Schema = dict[str, Any]
VARIABLE = r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}"
SECRET = r"^\$\{[a-z][a-z0-9_]*:(?!-)[^}]+\}$"  # noqa: S105  # how one is written
DURATION = r"^\s*\d+(\.\d+)?\s*(us|ms|s|m|h|d)\s*$"
JSON = r"^\s*[\[{]"
OR_VARIABLE: Schema = {"type": "string", "pattern": VARIABLE}
SCALARS: Mapping[Any, Schema] = {
    str: {"type": "string"},
    Path: {"type": "string"},
    bool: {"type": ["boolean", "string"], "pattern": VARIABLE},
    int: {"type": ["integer", "string"], "pattern": VARIABLE},
    float: {"type": ["number", "string"], "pattern": VARIABLE},
    timedelta: {"type": ["number", "string"], "pattern": f"{DURATION}|{VARIABLE}"},
    Secret: {"type": "string", "pattern": SECRET},
    type(None): {"type": "null"},
}


class Types:
    """Makes schemas, and keeps those of classes as definitions that others refer to."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}

    def of(self, kind: Any) -> Schema:
        """The schema of a type."""
        origin, args = get_origin(kind), get_args(kind)
        if kind in SCALARS:
            return dict(SCALARS[kind])
        if origin is Literal:
            return {"anyOf": [{"enum": list(args)}, OR_VARIABLE]}
        if is_union(kind):
            return self._union(args)
        if origin in (list, tuple):
            return {"type": ["array", "string"], "items": self.of(args[0]), "pattern": f"{JSON}|{VARIABLE}"}
        if origin is dict:
            names = {"propertyNames": {"enum": list(get_args(args[0]))}} if get_origin(args[0]) is Literal else {}
            return {"type": ["object", "string"], "additionalProperties": self.of(args[1]), "pattern": f"{JSON}|{VARIABLE}", **names}
        if attrs.has(kind):
            return self._refer(kind)
        return {}

    def options(self, cls: type) -> Schema:
        """The schema of a mapping with the options of a class."""
        hints = typing.get_type_hints(cls)
        known = {one.name: self._option(one, hints[one.name]) for one in init_fields(cls)}
        needed = [one.name for one in init_fields(cls) if one.default is attrs.NOTHING]
        return {"type": "object", "properties": known, "additionalProperties": False} | ({"required": needed} if needed else {})

    def _option(self, one: attrs.Attribute[Any], kind: Any) -> Schema:
        """The schema of one option: its type, limits, default and description."""
        unit, low, high = (one.metadata.get(name) for name in ("unit", "minimum", "maximum"))
        text = one.metadata.get("help", "") + (f" In {unit}." if unit else "")
        found = {"description": text} | self.of(kind) if text else self.of(kind)
        found |= {name: limit for name, limit in (("minimum", low), ("maximum", high)) if limit is not None}
        default: Any = one.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types Factory as a function
            default = default.factory()
        return found | ({} if default is attrs.NOTHING else {"default": written(default)})

    def _union(self, kinds: tuple[Any, ...]) -> Schema:
        plain: list[Schema] = [{"type": ["boolean", "number", "string"]}] if set(kinds) >= PLAIN else []
        return {"anyOf": plain + [self.of(kind) for kind in kinds if not plain or kind not in PLAIN]}

    def _refer(self, cls: type) -> Schema:
        name = f"{cls.__module__}.{cls.__qualname__}"
        if name not in self.definitions:
            self.definitions[name] = {}  # a class that holds itself refers to what is being made
            about = {"description": inspect.cleandoc(cls.__doc__ or "")}
            self.definitions[name] = about | self.options(cls) | {"type": ["object", "string"], "pattern": f"{JSON}|{VARIABLE}"}
        return {"$ref": f"#/$defs/{name}"}


def written(value: Any) -> Any:
    """A value as it is written in YAML."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, (Path, SecretReference)):
        return str(value)
    if attrs.has(type(value)):
        return {one.name: written(getattr(value, one.name)) for one in init_fields(type(value))}
    if isinstance(value, (list, tuple)):
        return [written(one) for one in value]
    if isinstance(value, dict):
        return {name: written(one) for name, one in value.items()}
    return value
