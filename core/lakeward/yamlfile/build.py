"""From YAML data to a component: checked values, and every mistake with its path."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from functools import partial
from operator import is_
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
import cattrs.cols
import cattrs.gen
from attrs import frozen
from cattrs.errors import ForbiddenExtraKeysError

from lakeward.errors import OptionError
from lakeward.options import NAMES, Address, in_range, init_fields, is_union, type_words
from lakeward.secrets import Secret, SecretReference

Step = str | int
T = TypeVar("T")
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d)")
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@frozen
class Mistake:
    """What is wrong with one option, at its path below the component."""

    path: tuple[Step, ...]
    message: str
    at_key: bool = False


class Mistakes(Exception):
    """All mistakes of one component."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(mistake.message for mistake in mistakes))
        self.mistakes = tuple(mistakes)


def build(cls: type[T], data: Mapping[str, Any], folder: Path) -> T:
    """An instance of `cls` from YAML data; relative paths are below `folder`. Raises `Mistakes`, all at once."""
    try:
        return _converter(folder).structure(data, cls)
    except (cattrs.BaseValidationError, ValueError) as error:
        raise Mistakes(list(_mistakes(error, ()))) from error


def unwrapped(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a class that takes them in one mapping as well (its `block`), as if all stood beside `use`. Raises `Mistakes`."""
    block = getattr(cls, "block", "")
    inner = build(dict[str, dict[str, Any]], {block: (options.get(block) if block else None) or {}}, Path())[block]
    if twice := sorted(options.keys() & inner.keys()):
        raise Mistakes([Mistake((name,), f"stands in {block} too; write it once", at_key=True) for name in twice])
    return {name: value for name, value in options.items() if not block or name != block} | inner


def _converter(folder: Path) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (str, bool, int):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, lambda value, _: float(_expect(value, (int, float), NAMES[float])))
    converter.register_structure_hook(Path, lambda value, _: folder / Path(_expect(value, (str,), "a path")).expanduser())
    converter.register_structure_hook(Address, lambda value, _: Address(value if "://" in str(value) else converter.structure(value, Path)))
    converter.register_structure_hook(timedelta, lambda value, _: duration(value))
    converter.register_structure_hook(Secret, _secret)
    converter.register_structure_hook_func(partial(_has_origin, Literal), _literal)
    converter.register_structure_hook_func(partial(is_, Any), lambda value, _: value)
    converter.register_structure_hook_factory(is_union, lambda kind: _one_of(converter, get_args(kind)))
    for origin in (list, dict):
        converter.register_structure_hook_factory(partial(_has_origin, origin), partial(_collection, converter))
    converter.register_structure_hook_factory(attrs.has, lambda kind: _nested(converter, kind))
    return converter


def duration(value: object) -> timedelta:
    """`5s`, `250ms`, `1.5h`, `10m`, `1d`, or a number of seconds."""
    match = DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    try:
        if match:
            return timedelta(seconds=float(match[1]) * UNITS[match[2]])
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return timedelta(seconds=value)
    except (OverflowError, ValueError):
        pass  # longer than a timedelta can be, infinite, or not a number
    raise ValueError(f"expected a duration such as 5s, 250ms, 10m or 1h, got {_got(value)}")


def _got(value: object) -> str:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return f"{NAMES[type(value)]} ({value!r})" if len(repr(value)) <= 40 else NAMES[type(value)]
    return "a secret" if isinstance(value, (Secret, SecretReference)) else NAMES.get(type(value), type(value).__name__)


def _expect(value: object, kinds: tuple[type, ...], wanted: str) -> Any:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"expected {wanted}, got {_got(value)}")
    return value


def _opened(value: object, wanted: str) -> object:
    """A list or mapping that is written as JSON in a text, because it came from an environment variable: `columns: ${COLUMNS}`."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected {wanted}, got text that is no JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key is written twice")
    return found


def _exactly(kind: type) -> Callable[[object, type], Any]:
    return lambda value, _: _expect(value, (kind,), NAMES[kind])


def _secret(value: object, _: type) -> Secret:
    if not isinstance(value, Secret):
        raise ValueError("is a secret: do not write it here, refer to it as ${env:NAME} or ${file:/path}")
    return value


def _literal(value: object, kind: Any) -> object:
    allowed = get_args(kind)
    if not any(value == choice and type(value) is type(choice) for choice in allowed):  # 1 == True == 1.0
        raise ValueError(f"expected one of {', '.join(map(str, allowed))}; got {_got(value)}{_guess(value, list(map(str, allowed)))}")
    return value


def _guess(value: object, choices: Sequence[str]) -> str:
    close = get_close_matches(value, choices, 1) if isinstance(value, str) else []
    return f", did you mean {close[0]!r}?" if close else ""


def _one_of(converter: cattrs.Converter, kinds: tuple[Any, ...]) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if value is None and type(None) in kinds:
            return None
        errors = []
        for kind in kinds:
            if kind is type(None):
                continue
            try:
                return converter.structure(value, kind)
            except Exception as error:  # noqa: BLE001  # structuring a member may raise what it likes; all are weighed below
                errors.append((kind, error))
        # the member of the same shape knows best what is wrong inside it
        shaped = [
            error for kind, error in errors if isinstance(value, (list, dict)) and (get_origin(kind) is type(value) or attrs.has(kind))
        ]
        if len(errors) == 1 or shaped:
            raise (shaped or [errors[0][1]])[0]
        choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind) if isinstance(choice, str)]
        words = type_words(Union[kinds]).replace("a duration", "a duration such as 30m")  # noqa: UP007  # made of a tuple
        raise ValueError(f"expected {words}, got {_got(value)}{_guess(value, choices)}")

    return structure


def _has_origin(origin: Any, kind: Any) -> bool:
    return get_origin(kind) is origin


def _collection(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    origin = get_origin(kind)
    make = cattrs.cols.mapping_structure_factory if origin is dict else cattrs.cols.list_structure_factory
    hook = make(kind, converter)
    return lambda value, _: hook(_expect(_opened(value, NAMES[origin]), (origin,), NAMES[origin]), kind)


def _nested(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    checks = {one.name: cattrs.override(struct_hook=partial(_checked, converter, one)) for one in init_fields(kind)}
    hook = cattrs.gen.make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **checks)  # type: ignore[arg-type]  # the stubs know the named ones only
    return lambda value, _: hook(_expect(_opened(value, NAMES[dict]), (dict,), NAMES[dict]), kind)


def _checked(converter: cattrs.Converter, attribute: attrs.Attribute[Any], value: Any, kind: Any) -> Any:
    """Limits are looked at here already, because a component with another mistake is never made and would not see them."""
    found = converter.structure(value, kind)
    if attribute.validator is in_range:
        try:
            in_range(None, attribute, found)
        except OptionError as error:
            raise ValueError(error.message) from None
    return found


def _mistakes(error: BaseException, path: tuple[Step, ...]) -> Iterator[Mistake]:
    """Walk the exception groups of cattrs; each leaf is one mistake."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _mistakes(inner, path + _step(inner))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [attribute.name for attribute in init_fields(error.cl)]
        for key in sorted(map(str, error.extra_fields)):
            yield Mistake((*path, key), "unknown option" + suggestion(key, known), at_key=True)
    elif isinstance(error, OptionError):
        yield Mistake(path + steps(error.option), error.message)
    elif isinstance(error, KeyError) and path and error.args == path[-1:]:
        yield Mistake(path, "required, but missing", at_key=True)
    else:  # a ValueError is written for the person; of others the message alone says too little
        yield Mistake(path, str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}")


def _step(error: BaseException) -> tuple[Step, ...]:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, cattrs.IterableValidationNote):
            return (note.index,)
        if isinstance(note, cattrs.AttributeValidationNote):
            return (note.name,)
    return ()


def steps(path: str) -> tuple[Step, ...]:
    """`rules[2].fail` as `("rules", 2, "fail")`."""
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in re.findall(r"\[\d+\]|[^.\[\]]+", path))


def suggestion(word: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown word."""
    close = get_close_matches(word, known, 1)
    return f", did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}" if known else ""
