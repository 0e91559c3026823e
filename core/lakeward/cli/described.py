"""The options of a component in words, for `lakeward plugins show` and the reference pages."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import attrs
from attrs import frozen

from lakeward.options import init_fields, type_words
from lakeward.secrets import SecretReference


@frozen
class Described:
    """One option in words."""

    name: str
    type: str
    default: str
    """As it would be written in YAML; empty for a required option."""
    required: bool
    unit: str
    help: str


def describe(cls: type) -> list[Described]:
    """The options of a component class, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    return [
        Described(
            attribute.name,
            type_words(hints[attribute.name]),
            "" if attribute.default is attrs.NOTHING else _default_words(attribute.default),
            attribute.default is attrs.NOTHING,
            attribute.metadata.get("unit", ""),
            attribute.metadata.get("help", ""),
        )
        for attribute in init_fields(cls)
    ]


def parts(cls: type, path: str = "") -> Iterator[tuple[str, type]]:
    """The classes of options that are mappings with options of their own, with their paths: `rules[]`, `columns.NAME`."""
    hints = typing.get_type_hints(cls)
    for attribute in init_fields(cls):
        yield from _parts(hints[attribute.name], f"{path}{attribute.name}")


def _parts(kind: Any, path: str) -> Iterator[tuple[str, type]]:
    if attrs.has(kind):
        yield path, kind
        yield from parts(kind, f"{path}.")
    below = {list: "[]", dict: ".NAME"}.get(typing.get_origin(kind) or kind, "")
    for argument in typing.get_args(kind):
        yield from _parts(argument, path + below)


def _default_words(default: Any) -> str:
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types Factory as a function
        default = default.factory()
    if isinstance(default, SecretReference):
        return str(default)
    if isinstance(default, timedelta):
        return f"{default.total_seconds():g}s"
    if isinstance(default, bool) or default is None:
        return {True: "true", False: "false", None: "none"}[default]
    if attrs.has(type(default)):
        return ", ".join(f"{field.name}: {_default_words(getattr(default, field.name))}" for field in init_fields(type(default)))
    if isinstance(default, (list, tuple)):
        return "[" + ", ".join(map(_default_words, default)) + "]"
    return str(default)
