"""Expressions, beside a plain Python oracle, and under attack."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lakeward import OptionError
from lakeward_plugins.transforms.physics_validation.expression import parse
from lakeward_plugins.transforms.physics_validation.formulas import FORMULAS
from lakeward_plugins.transforms.physics_validation.reader import DEEPEST

NAMES = ("a", "b", "c")
Row = dict[str, float]


def evaluate(text: str, **columns: list[float]) -> list[int]:
    arrays = {name: np.array(values, np.float64) for name, values in columns.items()}
    flags = parse(text).evaluate(arrays, len(next(iter(arrays.values()))))
    assert flags.dtype == np.int8
    return flags.tolist()


# -- what the text means -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("a < 2", [1, 0, 0]),
        ("a <= 2", [1, 1, 0]),
        ("a > 2", [0, 0, 1]),
        ("a >= 2", [0, 1, 1]),
        ("a == 2", [0, 1, 0]),
        ("a != 2", [1, 0, 1]),
        ("1 < a < 3", [0, 1, 0]),
        ("1 <= a < b <= 4", [1, 0, 0]),
        ("not a < 2", [0, 1, 1]),
        ("a < 2 or b < 2", [1, 0, 1]),
        ("a < 2 and b < 2 or a == 2", [0, 1, 0]),
        ("a < 2 and (b < 2 or a == 2)", [0, 0, 0]),
        ("not a < 2 and not b < 2", [0, 1, 0]),
        ("-a ** 2 == -(a * a)", [1, 1, 1]),
        ("2 - 3 - a == -1 - a and 8 / 2 / 2 * a == 2 * a", [1, 1, 1]),
        ("a + b * 2 > 9", [0, 0, 0]),
        ("(a + b) * 2 > 9", [1, 0, 0]),
        ("+a == abs(-a) == sqrt(a ** 2) == min(a, a + 1, 99) == max(-1, a)", [1, 1, 1]),
        ("abs(log(exp(a)) - a) < 1e-12", [1, 1, 1]),
        ("a ** -1 == 1 / a and a ** (1 / 2) == sqrt(a)", [1, 1, 1]),
        ("a > pi", [0, 0, 0]),
        ("  \n a\n\t< 2 ", [1, 0, 0]),
    ],
)
def test_the_language(text: str, flags: list[int]) -> None:
    assert evaluate(text, a=[1, 2, 3], b=[4, 2, 1]) == flags


def test_names_of_columns() -> None:
    assert parse("c < 1 and a < `b` and `a` < 2").fields == ("a", "b", "c")
    odd = "wind speed (m/s), 10' «mean»"
    assert parse(f"`{odd}` < 3 and `a.b` < 4").fields == ("a.b", odd)
    assert evaluate(f"`{odd}` < 3", **{odd: [1, 5]}) == [1, 0]
    assert parse("`pi` > min and std_pressure < abs(max)").fields == ("max", "min", "pi", "std_pressure")
    assert parse("größe < µ").fields == ("größe", "µ")  # Python's parser makes another letter of the micro sign
    assert parse("`é`   < ﬁ").fields == ("é", "ﬁ")


def test_values_and_sides() -> None:
    columns = {"a": np.array([1.0, math.nan, 4.0]), "b": np.array([2.0, 2.0, 0.0])}
    assert parse("a / b", number=True).values(columns, 3).tolist()[0] == 0.5
    assert np.isnan(parse("a / b", number=True).values(columns, 3)[1:]).all()
    for text in ("abs(a - b) <= b + 1", "b + 1 >= abs(a - b)"):
        sides = parse(text).sides(columns, 3)
        assert sides is not None
        assert sorted(side.tolist()[0] for side in sides) == [1.0, 3.0]
    value, limit = parse("5 >= abs(a)").sides(columns, 3) or ((), ())
    assert (value[0], limit[0], limit[2]) == (1, 5, 5)  # the side without a column is the limit
    assert np.isnan([value[1], limit[1]]).all()
    assert parse("1 < a < 2").sides(columns, 3) is None
    assert parse("a < 1 or b < 1").sides(columns, 3) is None


def test_columns_stay_as_they_are() -> None:
    columns = {"a": np.array([0.0, math.inf, math.nan, -4.0])}
    before = columns["a"].copy()
    assert parse("1 / a > 0 and sqrt(a) > 0 and min(a, 1) < 2").evaluate(columns, 4).tolist() == [0, -1, -1, 0]
    parse("a", number=True).values(columns, 4)[:] = 7
    np.testing.assert_array_equal(columns["a"], before)


# -- what is not known -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf])
def test_a_missing_input_makes_the_row_unknown(missing: float) -> None:
    """Any of them, whatever the others say: the rule is not evaluated."""
    for text in ("a < 2 or b < 2", "a < 2 and b < 0", "not (a > 2 and b > 2)", "a != b", "a * 0 == 0 or b > 0", "1 / b == 0 or a == 1"):
        assert evaluate(text, a=[1, missing, 1, missing], b=[1, 1, missing, missing])[1:] == [-1, -1, -1]


@pytest.mark.parametrize(
    "part", ["1 / z", "log(z)", "sqrt(z - 1)", "(z - 1) ** 0.5", "exp(1000 + z)", "z / z", "dew_point(20, z)", "(1e300 * (z + 1e300))"]
)
def test_a_part_without_a_value_is_unknown(part: str) -> None:
    for text in ("{} < 1", "{} >= 1", "{} == {}", "{} != {}", "not {} < 1", "1 / ({}) == 0", "min({}, 1) <= 1", "0 * {} == 0"):
        assert evaluate(text.format(part, part), z=[0.0]) == [-1]
    assert evaluate(f"z == 0 or {part} < 1", z=[0.0]) == [1]
    assert evaluate(f"z != 0 and {part} < 1", z=[0.0]) == [0]
    assert evaluate(f"z == 0 and {part} < 1", z=[0.0]) == [-1]
    assert evaluate(f"z != 0 or {part} < 1", z=[0.0]) == [-1]


Oracle = Callable[[Row], Any]
"""The value of an expression for one row: a float, or True, False; None when it is unknown."""


def computed(call: Callable[..., float], *parts: Oracle) -> Oracle:
    def value(row: Row) -> float | None:
        numbers = [part(row) for part in parts]
        try:
            result = None if None in numbers else call(*numbers)
        except (ArithmeticError, ValueError):
            return None
        return result if isinstance(result, float) and math.isfinite(result) else None

    return value


def compared(call: Callable[[float, float], bool], left: Oracle, right: Oracle) -> Oracle:
    def value(row: Row) -> bool | None:
        numbers = left(row), right(row)
        return None if None in numbers else call(*numbers)

    return value


def kleene_and(left: Oracle, right: Oracle) -> Oracle:
    return lambda row: False if False in (left(row), right(row)) else None if None in (left(row), right(row)) else True


def kleene_not(part: Oracle) -> Oracle:
    return lambda row: {True: False, False: True, None: None}[part(row)]


def kleene_or(left: Oracle, right: Oracle) -> Oracle:
    return kleene_not(kleene_and(kleene_not(left), kleene_not(right)))


ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "({} + {})": lambda x, y: x + y,
    "({} - {})": lambda x, y: x - y,
    "{} * {}": lambda x, y: x * y,
    "{} / ({})": lambda x, y: x / y,
    "min({}, {})": min,
    "max({}, {})": max,
}
SINGLE: dict[str, Callable[[float], float]] = {"-({})": lambda x: -x, "abs({})": abs, "sqrt({})": math.sqrt, "({}) ** 2": lambda x: x * x}
RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "{} < {}": lambda x, y: x < y,
    "{} <= {}": lambda x, y: x <= y,
    "{} > {}": lambda x, y: x > y,
    "{} >= {}": lambda x, y: x >= y,
    "{} == {}": lambda x, y: x == y,
    "{} != {}": lambda x, y: x != y,
}
LOGIC = {"({}) and ({})": kleene_and, "({}) or ({})": kleene_or}
Both = tuple[str, Oracle]


def named(name: str) -> Both:
    return name, lambda row: row[name]


def joined(table: dict[str, Any], combine: Callable[..., Oracle], *parts: st.SearchStrategy[Both]) -> st.SearchStrategy[Both]:
    def build(form: str, given_parts: tuple[Both, ...]) -> Both:
        return form.format(*(text for text, _ in given_parts)), combine(table[form], *(oracle for _, oracle in given_parts))

    return st.builds(build, st.sampled_from(sorted(table)), st.tuples(*parts))


leaves = st.sampled_from([named(name) for name in NAMES])
numbers = st.recursive(leaves, lambda inner: joined(ARITHMETIC, computed, inner, inner) | joined(SINGLE, computed, inner), max_leaves=5)
relations = joined(RELATIONS, compared, numbers, numbers) | joined(
    {"{} < {}": RELATIONS["{} < {}"]}, compared, numbers, st.sampled_from([("0.5", lambda row: 0.5), ("1", lambda row: 1.0)])
)
conditions = st.recursive(
    relations,
    lambda inner: (
        joined(LOGIC, lambda combine, *parts: combine(*parts), inner, inner)
        | joined({"not ({})": kleene_not}, lambda combine, part: combine(part), inner)
    ),
    max_leaves=4,
)
cells = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, 3.0, math.nan]) | st.floats(-1e3, 1e3)


@settings(max_examples=250, deadline=None)
@given(conditions, st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=20))
def test_three_valued_logic_equals_an_oracle_row_by_row(both: Both, rows: list[tuple[float, float, float]]) -> None:
    text, oracle = both
    expression = parse(text)
    columns = {name: np.array([row[place] for row in rows]) for place, name in enumerate(NAMES)}
    wanted = []
    for row in rows:
        named_row = dict(zip(NAMES, row, strict=True))
        there = all(math.isfinite(named_row[name]) for name in expression.fields)
        wanted.append({True: 1, False: 0, None: -1}[oracle(named_row) if there else None])
    assert expression.evaluate(columns, len(rows)).tolist() == wanted, text


# -- hostile, and merely wrong -----------------------------------------------------------------------------------------

HOSTILE = [
    ("__import__('os').system('true') < a", "character 12, "),
    ("__import__(os) < a", r"character 1, '__import__\(os\) < a': there is no function __import__"),
    ("a.__class__ < 1", "character 1, 'a.__class__ < 1': a dot behind a name"),
    ("().__class__.__bases__ < a", "character 1, "),
    ("a[0] < 1", r"character 2, '\[0\] < 1'"),
    ("(lambda: 1)() < a", "character 8, "),
    ("[x for x in y] < a", "character 1, "),
    ("max(x for x in a) < 1", "character 1, "),
    ("min(1, (x for x in a)) < 1", "character 8, "),
    ("f'{a}' < 1", "character 2, "),
    ("(b := 3) < a", "character 4, "),
    ("10**10**10 < a", r"character 5, '10\*\*10 < a': an exponent"),
    ("a ** 17 < 1", "character 6, '17 < 1': an exponent is a number from -16 to 16"),
    ("2 ** a < 1", "character 6, "),
    ("a < 'x'", "character 5, .*text cannot be compared"),
    ("a < b if c else 1", "character 1, .*instead of if"),
    ("(yield) < a", "character 2, "),
    ("max(*a) < 1", "character 1, "),
    ("max(*a, *b) < 1", "character 5, "),
    ("eval(a) < 1", "character 1, .*there is no function eval; did you mean vapour|character 1, .*there is no function eval"),
    ("a(b)(c) < 1", "character 1, .*there is no function here"),
    ("abs(abs)(a) < 1", "character 1, "),
    ("a < " + "(" * 300 + "1" + ")" * 300, "character "),
    ("-" * 500 + "a < 1", f"character {DEEPEST + 1}, .*nested too deep"),
    ("not " * 240 + "a < 1", ".*nested too deep"),
    ("a < 1" + " + a" * 240, ".*nested too deep"),
    ("a < " + "9" * 900, "character 5, .*no value"),
    ("a < 1e999", "character 5, "),
    ("a" * 1001, "1001 characters; an expression has at most 1000"),
    ("a < 1; b", "character 6, "),
    ("a < 1 # b", "character 7, "),
    ("a < 1\\\nb", "character 6, "),
    ("a < 1\0", "character 6, "),
    ("a < 1j", "character 5, "),
    ("a < True", "character 5, .*compare with 1 and 0"),
    ("a < ...", "character 5, "),
    ("a is b", "character 1, .*compared with"),
    ("a in b", "character 1, .*compared with"),
    ("a // 2 < 1", r"character 1, .*computed with"),
    ("a % 2 == 0", "character 3, '% 2 == 0': % means nothing"),
    ("a & b", "character 3, .*write and"),
    ("a ^ 2 < 1", r"character 3, .*write \*\* for a power"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place"), HOSTILE, ids=[text[:30] for text, _ in HOSTILE])
def test_phy_14_hostile_text_is_refused_at_its_place(text: str, place: str) -> None:
    with watched(), pytest.raises(OptionError, match=f"^when: (at )?{place}"):
        parse(text, "when")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 3", "^expr: at character 3, '= 3': this cannot be read"),
        ("  a <> 3", "^expr: at character 5, '<> 3'|^expr: at character 5, '> 3'"),
        ("a < 1 AND b < 2", "^expr: at character 7, 'AND b < 2'"),
        ("a <", "^expr: at the end: this cannot be read"),
        ("", "^expr: at the end"),
        ("`b c` < 1 + µ.d", r"^expr: at character 13, 'µ.d': a dot"),
        ("`a < 3", "^expr: at character 1, '`a < 3': a backtick without its partner"),
        ("a < ``", "^expr: at character 5"),
        ("a", "^expr: 'a': this is a number; compare it"),
        ("a < 1 and b", "^expr: at character 11, 'b': a condition is wanted here"),
        ("not a", "^expr: at character 5, 'a': a condition is wanted here"),
        ("abs(a < 1) < 2", "^expr: at character 5, .*a number is wanted here"),
        ("(a < 1) + 2 < 3", "^expr: at character 2, .*a number is wanted here"),
        ("(a < 1) == (b < 1)", "^expr: at character 2, .*a number is wanted here"),
        ("a < 1 / 0", "^expr: at character 5, '1 / 0': this has no value"),
        ("a < log(-1)", "^expr: at character 5, .*no value"),
        ("a < 1 or 1 < 2", "^expr: at character 10, .*no column on either side"),
        ("pi > 3", "^expr: at character 1, .*no column on either side"),
        ("a, b", "^expr: at character 1, .*a comma stands between arguments"),
        ("sqrt(a, b) < 1", r"^expr: at character 1, .*sqrt takes 1 argument, x; here are 2"),
        ("min(a) < 1", "^expr: at character 1, .*min takes 2 or more arguments, x, y; here is 1"),
        ("a < betz_kw(b)", r"^expr: at character 5, .*betz_kw takes 3 arguments, wind_speed \(m/s\), rotor_diameter \(m\), .*; here is 1"),
        ("std_presure(a) < 1", "^expr: at character 1, .*no function std_presure; did you mean std_pressure"),
        ("`abs`(a) < 1", "^expr: at character 1, .*no function `abs`"),
        ("dew_point(temperature=a, relative_humidity=b) < 1", "^expr: at character 1, .*arguments have no names"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse(text)


def test_numbers_and_conditions_are_not_mixed_up() -> None:
    with pytest.raises(OptionError, match="a number is wanted, but this is a condition"):
        parse("a < 1", number=True)
    with pytest.raises(OptionError, match="names no column"):
        parse("1 + 1", number=True)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_every_formula_checks_the_number_of_its_arguments(name: str) -> None:
    needed = len(FORMULAS[name].arguments)
    for count in (*range(needed), needed + 1):
        with pytest.raises(OptionError, match=f"{name} takes {needed} argument"):
            parse(f"{name}({', '.join('a' * count)}) < 1")
    assert parse(f"{name}({', '.join('a' * needed)}) < 1").fields == ("a",)


FORBIDDEN = ("exec", "import", "open", "os.", "subprocess.", "socket.", "ctypes.", "code.__new__", "function.__new__")
happened: list[str] = []
watching = False


def _hear(event: str, _: Any) -> None:
    if watching and event.startswith(FORBIDDEN):
        happened.append(event)


sys.addaudithook(_hear)


@contextmanager
def watched() -> Iterator[None]:
    """Nothing within runs code, imports or opens anything; Python itself tells."""
    global watching
    happened.clear()
    watching = True
    try:
        yield
    finally:
        watching = False
    assert happened == []


def test_the_watch_sees_what_is_run() -> None:
    for attack in (lambda: eval("1"), Path("/dev/null").read_bytes):
        with pytest.raises(AssertionError), watched():
            attack()


PIECES = (
    "a b 1 0.5 1e308 ( ) + - * ** / // < <= == != = , . : [ ] { } ' \" ` # \\ abs( min( sqrt( dew_point( __import__ __class__ "
    "eval( exec( open( os print( 10**10**10 True None ... é µ 😀 := @ % & | ^ ~ ; f' 0x 1j 1_0 _"
)
WORDS = [
    " and ",
    " or ",
    " not ",
    " if ",
    " else ",
    " for ",
    " in ",
    " is ",
    "lambda ",
    "yield ",
    "await ",
    " ",
    "\n",
    "\0",
    "\ud800",
    "9" * 30,
]
pieces = st.sampled_from([*PIECES.split(" "), *WORDS])


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=40).map("".join) | st.text(max_size=60) | st.lists(pieces, min_size=200, max_size=300).map("".join))
@example("a < 1" + "\r\n\x0b\x0c\x1c\u2028\xa0" + "and b < 2")
@example("\ud800 < 1")
def test_phy_14_any_text_is_an_expression_or_an_option_error(text: str) -> None:
    with watched():
        try:
            expression = parse(text)
        except OptionError:
            return
        columns = {name: np.array([0.0, 1.0, -3.5, math.nan, 1e308]) for name in expression.fields}
        flags = expression.evaluate(columns, 5)
    assert set(flags.tolist()) <= {-1, 0, 1}
    assert flags[3] == -1


def test_the_worst_text_is_read_at_once() -> None:
    start = time.process_time()
    for text in (
        "(" * 1000,
        "a<" + "-" * 998,
        "a" + "**2" * 333,
        "a<1" + " or a<1" * 100,
        "not " * 250,
        "min(" * 250,
        "a<" * 500,
        "1" * 1000,
        "a<1" + "+a" * 90,
    ):
        try:
            parse(text)
        except OptionError:
            continue
    assert time.process_time() - start < 0.5


def test_a_relation_takes_several_million_rows_in_a_second() -> None:
    rows = 65_536
    columns = {name: np.linspace(1, 50, rows) for name in ("temperature", "dew_point", "relative_humidity")}
    for text in ("dew_point <= temperature + 0.1", "abs(relative_humidity - rh_from_dewpoint(temperature, dew_point)) <= 5"):
        expression = parse(text)
        spent = []
        for _ in range(5):
            start = time.process_time()
            expression.evaluate(columns, rows)
            spent.append(time.process_time() - start)
        assert rows / min(spent) > 5_000_000
