"""Queries: a small part of the SQL of the service, enough to look at documents.

    SELECT [DISTINCT] [TOP n] * | VALUE x | x [AS name], ...  FROM c
    [WHERE ...] [GROUP BY x, ...] [ORDER BY x [DESC], ...] [OFFSET n LIMIT m]

with paths (`c.a.b`, `c["a"]`), parameters (`@name`), AND, OR, NOT, comparisons, IN, BETWEEN and the functions below. What is missing in a
document is undefined: it equals nothing and is left out of results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from cosmosdb.documents import Wrong

TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>\d+(?:\.\d+)?)|(?P<name>[@\w]+)|(?P<sign><=|>=|!=|<>|[-=<>(),.*\[\]]))"""
)
UNDEFINED = object()
Rows = list[Any]
Node = Callable[[Rows], Any]
"""A value, worked out from the documents of a group; plain values look at the first."""
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b), "!=": lambda a, b: bool(a != b), "<>": lambda a, b: bool(a != b), "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b), ">": lambda a, b: bool(a > b), ">=": lambda a, b: bool(a >= b),
}  # fmt: skip
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "ARRAY_CONTAINS": lambda items, item: item in items, "STARTSWITH": lambda text, start: text.startswith(start),
    "CONTAINS": lambda text, part: part in text, "LOWER": str.lower, "UPPER": str.upper, "IS_DEFINED": lambda value: value is not UNDEFINED,
    "IS_NULL": lambda value: value is None, "IS_NUMBER": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "IS_STRING": lambda value: isinstance(value, str),
}  # fmt: skip
AGGREGATES: Mapping[str, Callable[[Rows], Any]] = {
    "COUNT": len, "SUM": sum, "MIN": lambda found: min(found, default=UNDEFINED), "MAX": lambda found: max(found, default=UNDEFINED),
    "AVG": lambda found: sum(found) / len(found) if found else UNDEFINED,
}  # fmt: skip


def select(text: str, parameters: Mapping[str, Any], documents: Rows) -> Rows:
    """The results. Raises Wrong (400) for what it does not understand."""
    return Query(text, parameters).over(documents)


@frozen
class Constant:
    """A value that is the same for every document."""

    value: Any

    def __call__(self, rows: Rows) -> Any:
        return self.value


class Query:
    """One parsed query."""

    def __init__(self, text: str, parameters: Mapping[str, Any]) -> None:
        self._tokens, self._at, self._parameters, self._aggregates = _tokens(text), 0, parameters, False
        self._expect("SELECT")
        self._distinct = self._take("DISTINCT")
        self._top = int(self._next()) if self._take("TOP") else None
        self._value, self._columns = self._take("VALUE"), list[tuple[str, Node]]()
        if not self._take("*"):
            self._columns.append(self._column(1))
            while self._take(","):
                self._columns.append(self._column(len(self._columns) + 1))
        self._expect("FROM")
        self._alias = self._next()
        if self._take("AS") or self._peek().upper() not in ("", "WHERE", "GROUP", "ORDER", "OFFSET"):
            self._alias = self._next()
        self._where = self._or() if self._take("WHERE") else (lambda _: True)
        self._groups = self._list() if self._take("GROUP", "BY") else None
        self._order = self._orders() if self._take("ORDER", "BY") else []
        self._offset, self._limit = 0, self._top
        if self._take("OFFSET"):
            self._offset = int(self._next())
            self._expect("LIMIT")
            self._limit = int(self._next())
        if self._peek():
            raise self._mistake()

    def over(self, documents: Rows) -> Rows:
        """The results in order."""
        kept = [[document] for document in documents if self._where([document]) is True]
        if self._groups is not None or self._aggregates:
            groups: dict[str, Rows] = {} if self._groups else {"[]": []}
            for [document] in kept:
                groups.setdefault(json.dumps([_plain(node([document])) for node in self._groups or []]), []).append(document)
            kept = list(groups.values())
        for node, descending in reversed(self._order):
            kept.sort(key=lambda rows, node=node: _rank(node(rows)), reverse=descending)  # type: ignore[misc]
        results = [result for rows in kept if (result := self._result(rows)) is not UNDEFINED]
        if self._distinct:
            results = list({json.dumps(result, sort_keys=True): result for result in results}.values())
        return results[self._offset :][: self._limit]

    def _result(self, rows: Rows) -> Any:
        if not self._columns:
            return rows[0]
        if self._value:
            return self._columns[0][1](rows)
        found = {name: node(rows) for name, node in self._columns}
        return {name: value for name, value in found.items() if value is not UNDEFINED}

    # -- the parts of a query ------------------------------------------------------------------------------------------

    def _column(self, number: int) -> tuple[str, Node]:
        start = self._at
        node, path = self._or(), self._tokens[start : self._at]
        plain = len(path) > 1 and path[-2] == "." and "(" not in path
        name = self._next() if self._take("AS") else path[-1] if plain else f"${number}"
        return name, node

    def _orders(self) -> list[tuple[Node, bool]]:
        found = [(self._or(), self._direction())]
        while self._take(","):
            found.append((self._or(), self._direction()))
        return found

    def _direction(self) -> bool:
        descending = self._take("DESC")
        return descending or not (self._take("ASC") or True)

    def _list(self) -> list[Node]:
        found = [self._or()]
        while self._take(","):
            found.append(self._or())
        return found

    def _or(self) -> Node:
        left = self._and()
        while self._take("OR"):
            left = _either(left, self._and())
        return left

    def _and(self) -> Node:
        left = self._not()
        while self._take("AND"):
            left = _both(left, self._not())
        return left

    def _not(self) -> Node:
        if self._take("NOT"):
            inner = self._not()
            return lambda rows: {True: False, False: True}.get(inner(rows), UNDEFINED)
        return self._comparison()

    def _comparison(self) -> Node:
        left = self._primary()
        if self._take("IN"):
            self._expect("(")
            among = self._list()
            self._expect(")")
            if all(isinstance(node, Constant) for node in among):  # many ids, looked for among many documents
                values = {_rank(node([])) for node in among}
                return lambda rows: _rank(left(rows)) in values
            return lambda rows: any(_compared("=", left(rows), node(rows)) is True for node in among)
        if self._take("BETWEEN"):
            low = self._primary()
            self._expect("AND")
            high = self._primary()
            return lambda rows: _compared("<=", low(rows), left(rows)) is True and _compared("<=", left(rows), high(rows)) is True
        if (sign := self._peek()) in COMPARISONS:
            self._next()
            right = self._primary()
            return lambda rows: _compared(sign, left(rows), right(rows))
        return left

    def _primary(self) -> Node:
        token = self._next()
        if token == "(":  # a token of SQL
            inner = self._or()
            self._expect(")")
            return inner
        if token == "-":
            negated = self._primary()
            return lambda rows: -negated(rows)
        if token[0] in "\"'":
            return Constant(token[1:-1].encode().decode("unicode_escape") if "\\" in token else token[1:-1])
        if token[0].isdigit():
            return Constant(json.loads(token))
        if token.startswith("@"):
            if token not in self._parameters:
                raise Wrong(400, "BadRequest", f"Syntax error: the parameter {token} has no value")
            return Constant(self._parameters[token])
        if token.lower() in ("true", "false", "null", "undefined"):
            return Constant({"true": True, "false": False, "null": None, "undefined": UNDEFINED}[token.lower()])
        if self._peek() == "(":
            return self._function(token.upper())
        return self._path(token)

    def _function(self, name: str) -> Node:
        self._expect("(")
        arguments = [] if self._peek() == ")" else self._list()
        self._expect(")")
        if name in AGGREGATES:
            self._aggregates = True
            return lambda rows: AGGREGATES[name]([found for row in rows if (found := arguments[0]([row])) is not UNDEFINED])
        if name not in FUNCTIONS:
            raise Wrong(400, "BadRequest", f"'{name}' is not a recognized built-in function name.")
        return lambda rows: _called(name, [node(rows) for node in arguments])

    def _path(self, first: str) -> Node:
        steps: list[str | int] = []
        while True:
            if self._take("."):
                steps.append(self._next())
            elif self._take("["):
                token = self._next()
                steps.append(int(token) if token.isdigit() else token[1:-1])
                self._expect("]")
            else:
                break
        if not re.fullmatch(r"\w+", first):
            raise self._mistake()
        return lambda rows: _walk(rows, steps)

    # -- tokens --------------------------------------------------------------------------------------------------------

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        if not self._peek():
            raise self._mistake()
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, *words: str) -> bool:
        found = tuple(token.upper() for token in self._tokens[self._at : self._at + len(words)]) == words
        self._at += len(words) if found else 0
        return found

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise self._mistake()

    def _mistake(self) -> Wrong:
        return Wrong(400, "BadRequest", f"Syntax error, incorrect syntax near '{self._peek()}'.")


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text.rstrip()):
        match = TOKEN.match(text, at)
        if not match:
            raise Wrong(400, "BadRequest", f"Syntax error, invalid token '{text[at : at + 10]}'.")
        found.append(match[match.lastgroup or 0])
        at = match.end()
    return found


def _both(left: Node, right: Node) -> Node:
    return lambda rows: left(rows) is True and right(rows) is True


def _either(left: Node, right: Node) -> Node:
    return lambda rows: left(rows) is True or right(rows) is True


def _walk(rows: Rows, steps: list[str | int]) -> Any:
    value: Any = rows[0] if rows else UNDEFINED
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return UNDEFINED
    return value


def _compared(sign: str, left: Any, right: Any) -> Any:
    """Undefined between values of different types."""
    if left is UNDEFINED or right is UNDEFINED or _rank(left)[0] != _rank(right)[0]:
        return UNDEFINED
    return COMPARISONS[sign](left, right)


def _called(name: str, values: list[Any]) -> Any:
    if name != "IS_DEFINED" and UNDEFINED in values:
        return UNDEFINED
    try:
        return FUNCTIONS[name](*values)
    except (TypeError, AttributeError):
        return UNDEFINED


def _plain(value: Any) -> Any:
    return None if value is UNDEFINED else value


def _rank(value: Any) -> tuple[int, Any]:
    """Types have an order among each other."""
    for place, kind in enumerate((type(None), bool, (int, float), str)):
        if isinstance(value, kind):
            return place + 1, 0 if value is None else value
    return (0, 0) if value is UNDEFINED else (5, json.dumps(value, sort_keys=True))
