"""Options of components: what attrs fields cannot say, and the words that describe them.

A component's init fields are its YAML options. Help, reference pages and schemas come from `describe`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from attrs import frozen

from lakeward.errors import OptionError
from lakeward.secrets import Secret

NAMES: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}


def option(
    default: Any = attrs.NOTHING,
    *,
    help: str,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    factory: Callable[[], Any] | None = None,
) -> Any:
    """An attrs field that is a YAML option.

    `help` is one sentence for a person; `unit` is the unit of numbers; `minimum` and `maximum` are allowed
    themselves. Without default or factory the option is required.
    """
    if factory is not None:
        default = attrs.Factory(factory)
    metadata = {"help": help, "unit": unit, "minimum": minimum, "maximum": maximum}
    return attrs.field(default=default, metadata=metadata, validator=in_range)


def in_range(component: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """The validator of every option: raises OptionError for a number or duration outside its limits."""
    low, high, unit = attribute.metadata["minimum"], attribute.metadata["maximum"], ""
    if isinstance(value, timedelta):
        value, unit = value.total_seconds(), " s"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        wanted = f"at least {_number(low)}" if high is None else f"at most {_number(high)}"
        if low is not None and high is not None:
            wanted = f"from {_number(low)} to {_number(high)}"
        raise OptionError(attribute.name, f"expected {wanted}{unit}, got {_number(value)}{unit}")


def _number(value: float) -> str:
    return f"{value:,.15g}"


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


def init_fields(cls: type) -> list[attrs.Attribute[Any]]:
    """The fields that are options."""
    return [attribute for attribute in attrs.fields(cls) if attribute.init]


def type_words(kind: Any) -> str:
    """`text`, `a list of text`, `one of a, b`: the words that error messages and reference pages use for a type."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if is_union(kind):
        return " or ".join(type_words(arg) for arg in args)
    if origin in (list, tuple):
        return f"a list of {type_words(args[0])}"
    if origin is dict:
        return f"a mapping to {type_words(args[1])}"
    if attrs.has(kind):
        return "a mapping with " + ", ".join(attribute.name for attribute in init_fields(kind))
    special = {Path: "a path", timedelta: "a duration", Secret: "a secret"}
    return NAMES.get(kind) or special.get(kind, "any value")


def is_union(kind: Any) -> bool:
    """`A | B` or `Union[A, B]`."""
    return get_origin(kind) in (Union, types.UnionType)


def _default_words(default: Any) -> str:
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types Factory as a function
        default = default.factory()
    if isinstance(default, timedelta):
        return f"{default.total_seconds():g}s"
    if isinstance(default, bool) or default is None:
        return {True: "true", False: "false", None: "none"}[default]
    if attrs.has(type(default)):
        return ", ".join(f"{field.name}: {_default_words(getattr(default, field.name))}" for field in init_fields(type(default)))
    if isinstance(default, (list, tuple)):
        return "[" + ", ".join(map(_default_words, default)) + "]"
    return str(default)
