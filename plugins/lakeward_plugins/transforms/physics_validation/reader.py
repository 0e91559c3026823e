"""From the text of an expression to functions over whole columns.

Python's parser reads the text; then it is compiled, form by form from a short list of forms. What is not on the list is refused with its
place in the text. Nothing of the text is ever run as Python.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import reduce
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
from attrs import define, field, frozen

from lakeward import OptionError
from lakeward_plugins.transforms.physics_validation.formulas import FORMULAS, Formula, Values

Columns = Mapping[str, Values]
Truth = tuple[Any, Any]
"""Where a condition is true and where it is false, as arrays of bool; where neither, it is unknown."""
DEEPEST, LARGEST_EXPONENT = 100, 16
CONSTANTS = {"pi": math.pi, "standard_gravity": 9.80665, "standard_density": 1.225}
"""1, m/s2, kg/m3."""


@frozen(eq=False)
class Part:
    """A part of an expression, compiled."""

    run: Callable[[Columns], Any]
    """For a number its values, NaN where there is none; for a condition its `Truth`."""
    condition: bool = False
    constant: bool = False
    """That it needs no column."""
    sides: tuple[Part, Part] | None = None
    """Of a single comparison: what is compared, and its limit."""


QUOTED = re.compile(r"`[^`\r\n]+`")
ODD = re.compile(r"[^\w\s.+*/(),<>=!-]")
HINTS = {
    "'": "text cannot be compared here; a rule of kind equals can; a name of a column goes in backticks",
    '"': "text cannot be compared here; a rule of kind equals can; a name of a column goes in backticks",
    "`": "a backtick without its partner, or with nothing between them",
    "&": "write and",
    "|": "write or",
    "^": "write ** for a power",
}
FORMS = {
    ast.Attribute: "a dot behind a name means nothing; a column with a dot in its name goes in backticks",
    ast.IfExp: "write and, or, not instead of if and else",
    ast.Tuple: "a comma stands between arguments of a function only",
}
"""What is said of forms that people are likely to try."""


@define(eq=False)
class Reader:
    """Reads one text."""

    text: str
    option: str
    fields: set[str] = field(init=False, factory=set)
    _plain: str = field(init=False)
    """The text with as many other characters for names in backticks and for white space, so that places stay."""
    _margin: int = field(init=False)
    _encoded: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._plain = re.sub(r"\s", " ", QUOTED.sub(lambda name: "_" * len(name[0]), self.text))
        self._margin = len(self._plain) - len(self._plain.lstrip())
        self._encoded = self._plain.lstrip().encode(errors="replace")  # ast counts bytes

    def root(self) -> Part:
        """The whole text."""
        if odd := ODD.search(self._plain):
            self._refuse(odd.start(), HINTS.get(odd[0], f"{odd[0]} means nothing in an expression"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of `1or x`, which some versions read and some do not
                tree = ast.parse(self._encoded.decode(), mode="eval").body
        except SyntaxError as error:
            place = self._margin + error.offset - 1 if error.offset else len(self.text)
            self._refuse(place, "this cannot be read; expected something like a <= b + 0.1 and c != 0")
        except (RecursionError, MemoryError, ValueError):
            self._refuse(self._margin, "this is nested too deep")
        return self._part(tree, 0)

    def _part(self, node: ast.expr, depth: int) -> Part:
        if depth > DEEPEST:
            self._refuse(self._start(node), "this is nested too deep; make two rules of it")
        read = READERS.get(type(node))
        if read is None:
            self._refuse(self._start(node), FORMS.get(type(node), "only numbers, columns, operators and functions make an expression"))
        return read(self, node, depth + 1)

    def number(self, node: ast.expr, depth: int) -> Part:
        """A part that must be a number."""
        part = self._part(node, depth)
        if part.condition:
            self._refuse(self._start(node), "a number is wanted here, but this is a condition")
        return part

    def condition(self, node: ast.expr, depth: int) -> Part:
        """A part that must be a condition."""
        part = self._part(node, depth)
        if not part.condition:
            self._refuse(self._start(node), "a condition is wanted here, but this is a number; compare it, as in x == 1")
        return part

    def computed(self, node: ast.expr, call: Callable[..., Values], parts: Sequence[Part]) -> Part:
        """What a function makes of numbers; of constants it is made once, now."""
        if all(part.constant for part in parts):
            with np.errstate(all="ignore"):
                value = float(call(*(part.run({}) for part in parts)))
            if not math.isfinite(value):
                self._refuse(self._start(node), "this has no value")
            return Part(lambda columns: value, constant=True)
        return Part(lambda columns: _finite(call(*[part.run(columns) for part in parts])))

    def name(self, node: ast.expr) -> str:
        """A name as it was written; Python's parser would change some letters."""
        end = len(self._encoded[: node.end_col_offset].decode())
        return self.text[self._start(node) : self._margin + end]

    def refuse(self, node: ast.expr, what: str) -> NoReturn:
        """Say what is wrong with a part of the text."""
        self._refuse(self._start(node), what)

    def _start(self, node: ast.expr) -> int:
        return self._margin + len(self._encoded[: node.col_offset].decode())

    def _refuse(self, place: int, what: str) -> NoReturn:
        rest = self.text[place : place + 30].rstrip()
        where = f"character {place + 1}, {rest!r}" if rest else "the end"
        raise OptionError(self.option, f"at {where}: {what}")


def _finite(values: Values) -> Values:
    """The array itself; infinite values in it become NaN, so that 1 / (1 / 0) is not 0."""
    endless = np.isinf(values)
    if endless.any():
        values[endless] = np.nan
    return values


# -- the forms ---------------------------------------------------------------------------------------------------------

ARITHMETIC = {ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.true_divide, ast.Pow: np.power}
COMPARISONS = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}


@frozen
class Function:
    """What a name before parentheses means."""

    call: Callable[..., Values]
    arguments: tuple[str, ...]
    """How they are called, with units."""
    most: int


def _of_physics(formula: Formula) -> Function:
    return Function(formula.call, tuple(f"{name} ({unit})" for name, unit in formula.arguments.items()), len(formula.arguments))


FUNCTIONS = {
    "abs": Function(np.abs, ("x",), 1),
    "sqrt": Function(np.sqrt, ("x",), 1),
    "log": Function(np.log, ("x",), 1),
    "exp": Function(np.exp, ("x",), 1),
    "min": Function(lambda *parts: reduce(np.minimum, parts), ("x", "y"), 9),
    "max": Function(lambda *parts: reduce(np.maximum, parts), ("x", "y"), 9),
} | {name: _of_physics(formula) for name, formula in FORMULAS.items()}


def _constant(reader: Reader, node: ast.Constant, _: int) -> Part:
    if type(node.value) not in (int, float):
        reader.refuse(node, "only plain numbers can stand here; for true and false compare with 1 and 0")
    value = float(node.value) if node.value < 1e308 else math.inf  # type: ignore[arg-type,operator]
    return reader.computed(node, lambda: np.asarray(value), [])


def _name(reader: Reader, node: ast.Name, _: int) -> Part:
    name = reader.name(node)
    if name in CONSTANTS:
        return Part(lambda columns: CONSTANTS[name], constant=True)
    field_name = name.strip("`")
    reader.fields.add(field_name)
    return Part(lambda columns: columns[field_name])


def _signed(reader: Reader, node: ast.UnaryOp, depth: int) -> Part:
    if isinstance(node.op, ast.Not):
        part = reader.condition(node.operand, depth)
        return Part(lambda columns: part.run(columns)[::-1], condition=True)
    return reader.computed(node, np.negative if isinstance(node.op, ast.USub) else np.positive, [reader.number(node.operand, depth)])


def _arithmetic(reader: Reader, node: ast.BinOp, depth: int) -> Part:
    call = ARITHMETIC.get(type(node.op))
    if call is None:
        reader.refuse(node, "numbers are computed with + - * / ** only")
    left, right = reader.number(node.left, depth), reader.number(node.right, depth)
    if call is np.power and not (right.constant and abs(right.run({})) <= LARGEST_EXPONENT):
        reader.refuse(node.right, f"an exponent is a number from -{LARGEST_EXPONENT} to {LARGEST_EXPONENT}, without columns")
    return reader.computed(node, call, [left, right])


def _logic(reader: Reader, node: ast.BoolOp, depth: int) -> Part:
    parts = [reader.condition(value, depth) for value in node.values]
    together = _all if isinstance(node.op, ast.And) else _any
    return Part(lambda columns: together([part.run(columns) for part in parts]), condition=True)


def _comparison(reader: Reader, node: ast.Compare, depth: int) -> Part:
    operands = [node.left, *node.comparators]
    parts = [reader.number(operand, depth) for operand in operands]
    calls = [COMPARISONS[type(operator)] for operator in node.ops if type(operator) in COMPARISONS]
    if len(calls) < len(node.ops):
        reader.refuse(node, "numbers are compared with < <= > >= == != only")
    for (left, right), operand in zip(pairwise(parts), operands, strict=False):
        if left.constant and right.constant:
            reader.refuse(operand, "there is no column on either side of this comparison")

    def run(columns: Columns) -> Truth:
        numbers = [part.run(columns) for part in parts]
        return _all([_compared(call, *pair) for call, pair in zip(calls, pairwise(numbers), strict=True)])

    sides = (parts[1], parts[0]) if parts[0].constant else (parts[0], parts[1])
    return Part(run, condition=True, sides=sides if len(calls) == 1 else None)


def _call(reader: Reader, node: ast.Call, depth: int) -> Part:
    name = reader.name(node.func) if isinstance(node.func, ast.Name) else ""
    function = FUNCTIONS.get(name)
    if function is None:
        near = get_close_matches(name, FUNCTIONS, 3)
        reader.refuse(
            node, f"there is no function {name or 'here'}; {'did you mean' if near else 'there are'} {', '.join(near or FUNCTIONS)}"
        )
    least, given = len(function.arguments), len(node.args) + len(node.keywords)
    if node.keywords:
        reader.refuse(node, f"arguments have no names; write {name}({', '.join(function.arguments)}), in this order")
    if not least <= given <= function.most:
        wanted = "1 argument" if function.most == 1 else f"{least}{'' if function.most == least else ' or more'} arguments"
        reader.refuse(node, f"{name} takes {wanted}, {', '.join(function.arguments)}; here {'is' if given == 1 else 'are'} {given}")
    return reader.computed(node, function.call, [reader.number(argument, depth) for argument in node.args])


READERS: dict[type[ast.expr], Callable[[Reader, Any, int], Part]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.UnaryOp: _signed,
    ast.BinOp: _arithmetic,
    ast.BoolOp: _logic,
    ast.Compare: _comparison,
    ast.Call: _call,
}
"""All forms that there are."""

# -- three-valued logic ------------------------------------------------------------------------------------------------


def _compared(call: Callable[..., Any], left: Any, right: Any) -> Truth:
    known = np.equal(left, left) & np.equal(right, right)  # NaN is not equal to itself
    true = call(left, right) & known
    return true, known & ~true


def _all(truths: Sequence[Truth]) -> Truth:
    true, false = zip(*truths, strict=True)
    return reduce(np.logical_and, true), reduce(np.logical_or, false)


def _any(truths: Sequence[Truth]) -> Truth:
    true, false = zip(*truths, strict=True)
    return reduce(np.logical_or, true), reduce(np.logical_and, false)
