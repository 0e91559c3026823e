"""Options of components: what attrs fields cannot say, and the words that describe them.

A component's init fields are its YAML options. They also say what help and reference pages tell.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

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
PLAIN = {str, bool, int, float}
PLURAL = re.compile(r"^one of|^a ((?:whole )?\w+)")


class Address(str):
    """The type of an option that is a path, made absolute like a Path, or a URL such as `s3://bucket/folder`, left as it is."""


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


def init_fields(cls: type) -> list[attrs.Attribute[Any]]:
    """The fields that are options."""
    return [attribute for attribute in attrs.fields(cls) if attribute.init]


def type_words(kind: Any) -> str:
    """`text`, `a list of text`, `one of a, b`: the words that error messages and reference pages use for a type."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if is_union(kind):
        return _union_words(args)
    if origin in (list, tuple):
        return f"a list of {PLURAL.sub(_plural, _in_brackets(args[0]))}"
    if origin is dict:
        return "a mapping" if args[1] is Any else f"a mapping of names to {_in_brackets(args[1])}"
    if attrs.has(kind):
        return "a mapping with " + ", ".join(attribute.name for attribute in init_fields(kind))
    return {**NAMES, Path: "a path", Address: "a path or a URL", timedelta: "a duration", Secret: "a secret"}.get(kind, "any value")


def _union_words(kinds: Sequence[Any]) -> str:
    """`a value` for all plain ones together, then lists, then `nothing`."""
    plain = PLAIN if set(kinds) >= PLAIN else set()
    lists = [kind for kind in kinds if get_origin(kind) is list]
    single = [kind for kind in kinds if kind not in plain and kind not in lists and kind is not type(None)]
    words = " or ".join([*(["a value"] if plain else []), *map(type_words, single)])
    for kind in lists:
        of_them = words and type_words(get_args(kind)[0]) == words
        words = f"{words}, or a list of them" if of_them else " or ".join(filter(None, [words, type_words(kind)]))
    return f"{words} or nothing" if type(None) in kinds else words


def _in_brackets(kind: Any) -> str:
    words = type_words(kind)
    return f"({words})" if is_union(kind) and " or " in words else words


def _plural(match: re.Match[str]) -> str:
    return "any of" if match[0] == "one of" else f"{match[1]}s"


def is_union(kind: Any) -> bool:
    """`A | B` or `Union[A, B]`."""
    return get_origin(kind) in (Union, types.UnionType)
