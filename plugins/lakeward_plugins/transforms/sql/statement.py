"""What a query may say: one SELECT from `batch`, of functions that depend on their arguments alone.

DuckDB gives the syntax tree of a query; every node of it must be on a list here, so what is new in a later DuckDB is refused until
somebody has looked at it. A row-by-row query may say less: whatever looks at more than one row depends on how rows are cut into batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import duckdb

from lakeward import ROW, OptionError
from lakeward_plugins.transforms.sql.session import TABLE, Function, Session, sentence

EXPRESSIONS = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA", "LAMBDA_REF",
    "OPERATOR", "STAR", "TYPE",
}  # fmt: skip
CLAUSES = {"SELECT_NODE", "CTE_NODE", "BASE_TABLE", "SUBQUERY", "ORDER_DEFAULT", "ASCENDING", "DESCENDING"}
OF_MANY_ROWS = {
    "WINDOW": "a window function", "SUBQUERY": "a subquery", "JOIN": "a join", "SET_OPERATION_NODE": "UNION, INTERSECT or EXCEPT",
    "LIMIT_MODIFIER": "LIMIT", "LIMIT_PERCENT_MODIFIER": "LIMIT", "DISTINCT_MODIFIER": "DISTINCT", "ORDER_MODIFIER": "ORDER BY",
    "TABLE_FUNCTION": "a function after FROM", "EXPRESSION_LIST": "VALUES", "EMPTY": "a SELECT without FROM",
}  # fmt: skip
"""What a query over the whole batch may say as well."""
PARTS_OF_MANY_ROWS = {"group_expressions": "GROUP BY", "group_sets": "GROUP BY", "having": "HAVING", "qualify": "QUALIFY"}
TABLE_FUNCTIONS = {"unnest", "range", "generate_series"}
"""Those that make rows of their arguments; others read files, settings and the like."""
IMPURE = {"current_localtime", "current_localtimestamp", "current_setting", "getvariable", "vector_type", "version"}
"""Which older versions of DuckDB call pure, and are not."""
NAMES_OF_NOW = {
    "current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "user", "current_user", "session_user",
    "current_role", "current_catalog", "current_schema",
}  # fmt: skip
"""What DuckDB takes for a function without parentheses, unless there is a column of that name."""


class Statement:
    """A query that has been looked at. Raises `OptionError` when it says what it may not."""

    def __init__(self, query: str, session: Session, *, whole: bool) -> None:
        self._session, self._whole = session, whole
        self._tables = {TABLE}
        self._now: set[str] = set()
        self._listed: set[int] = set()  # ids of what stands directly in a list of columns
        self.ordered = False
        try:
            select = self._select(query)
            self.ordered = _is_ordered(select)
            parts = list(_parts(select))
            self._note_names(parts)
            for part in parts:
                self._check(part)
        except RecursionError:
            raise _wrong("is nested too deeply") from None

    def check_columns(self, names: list[str]) -> None:
        """That what looks like a column is one, and not the time of now. Raises `OptionError`."""
        if taken := self._now - {name.lower() for name in names}:
            raise _wrong(f"{min(taken)} depends on when or where the query runs; a result must depend on the rows alone")

    def _select(self, query: str) -> dict[str, Any]:
        try:
            tree = self._session.syntax(query)
        except duckdb.Error as error:
            raise _wrong(sentence(error)) from None
        if tree["error"]:
            message = tree["error_message"]
            raise _wrong("expected one SELECT, and no other statement" if "Only SELECT" in message else message)
        if len(tree["statements"]) != 1:
            raise _wrong(f"expected one SELECT, got {len(tree['statements'])} statements")
        return tree["statements"][0]["node"]  # type: ignore[no-any-return]

    def _note_names(self, parts: list[dict[str, Any]]) -> None:
        """What tables are called in the query. A name of DuckDB's own would mean one or the other, by where it stands."""
        given = {entry["key"].lower() for part in parts for entry in part.get("cte_map", {}).get("map", ())}
        if taken := given & {TABLE, *self._session.views()}:
            raise _wrong(f"WITH {min(taken)}: there is a table of this name already; take another")
        self._tables |= given

    def _check(self, part: dict[str, Any]) -> None:
        """One node of the syntax tree."""
        if "class" in part:
            self._known(part["class"], EXPRESSIONS)
        elif isinstance(part.get("type"), str) and not _is_of_no_weight(part):
            self._known(part["type"], CLAUSES)
        for name, words in PARTS_OF_MANY_ROWS.items():
            if part.get(name):
                self._many_rows(words)
        if part.get("aggregate_handling", "STANDARD_HANDLING") != "STANDARD_HANDLING":
            self._many_rows("GROUP BY ALL")
        if part.get("sample"):
            raise _wrong("a sample is drawn at random; a result must depend on the rows alone")
        if part.get("type") == "BASE_TABLE":
            self._check_table(part)
        if part.get("class") == "FUNCTION" or part.get("type") == "WINDOW_AGGREGATE":  # other window functions are a closed list
            self._check_function(part)
        if part.get("class") == "COLUMN_REF" and len(part["column_names"]) == 1:
            self._now |= {part["column_names"][0].lower()} & NAMES_OF_NOW
        if not self._whole:
            self._listed |= {id(entry) for entry in part.get("select_list", ())}
            self._check_key(part)

    def _known(self, kind: str, allowed: set[str]) -> None:
        if kind in allowed:
            return
        if kind not in OF_MANY_ROWS:
            raise _wrong(f"{kind.lower().replace('_', ' ')} is not allowed here; a query may compute and compare columns of {TABLE}")
        self._many_rows(OF_MANY_ROWS[kind])

    def _many_rows(self, what: str) -> None:
        if not self._whole:
            raise _wrong(
                f"{what} does not make each row of that row alone, so the result would depend on how rows are cut into batches; "
                "take it out, or `use: sql_batch` when that is meant"
            )

    def _check_table(self, part: dict[str, Any]) -> None:
        name = part["table_name"]
        if part.get("schema_name") or part.get("catalog_name") or name.lower() not in self._tables:
            raise _wrong(f"expected the table {TABLE}, where the rows are; there is nothing else")

    def _check_key(self, part: dict[str, Any]) -> None:
        """That no other expression takes the place of `_row`, which tells the rows apart.

        With a table before it `_row` may be part of a struct: names of tables and columns can be the same.
        """
        kind, alias = part.get("class"), str(part.get("alias", "")).lower()
        names = [name.lower() for name in part["column_names"]] if kind == "COLUMN_REF" else [""]
        replaced = [str(text).lower() for name in ("replace_list", "rename_list") for one in part.get(name, ()) for text in one.values()]
        is_other = (kind and alias == ROW and names != [ROW]) or (names[-1] == ROW and len(names) > 1)
        if is_other or any(ROW in text for text in replaced):
            raise _wrong(f"{ROW} is the key of a row; select it as it is, without a table, and give other columns another name")
        if kind == "STAR" and part["relation_name"]:
            raise _wrong(f"write * in the place of {part['relation_name']}.*; there is one table only")
        computed = kind == "STAR" and (alias or (part.get("columns") and id(part) not in self._listed))
        if part.get("column_name_alias") or part.get("aliases") or computed:
            raise _wrong("name and compute columns one by one, with AS")

    def _check_function(self, part: dict[str, Any]) -> None:
        name = part["function_name"].lower()
        meanings = self._session.functions().get(name, ())
        if name == "unnest" or (meanings and all(one.kind in ("table", "table_macro", "pragma") for one in meanings)):
            if name not in TABLE_FUNCTIONS:
                raise _wrong(f"{name}() is not allowed; there is nothing to read but the table {TABLE}")
            self._many_rows(f"{name}()")
            return
        if not meanings:
            close = get_close_matches(name, self._session.functions(), 1)
            raise _wrong(f"no function {name}()" + (f", did you mean {close[0]}()?" if close else ""))
        arguments = part.get("arguments", part.get("children", ()))
        if not self._is_pure(meanings) or name in IMPURE or (name == "age" and len(arguments) == 1):
            raise _wrong(f"{name}() depends on more than its arguments; a result must depend on the rows alone")
        if part["class"] == "FUNCTION" and any(one.kind == "aggregate" for one in meanings):
            self._many_rows(f"{name}()")

    def _is_pure(self, meanings: Sequence[Function]) -> bool:
        """True when a name means something pure; times in UTC are, and DuckDB calls them that for some types of arguments only."""
        plain = [one for one in meanings if one.kind != "macro"]
        for one in meanings if not plain else []:
            for part in _parts(self._select(f"SELECT {one.definition}")["select_list"]):
                self._check_part_of_macro(part)
        return not plain or any(one.pure for one in plain)

    def _check_part_of_macro(self, part: dict[str, Any]) -> None:
        if part.get("class") == "FUNCTION":
            self._check_function(part)
        if part.get("class") == "COLUMN_REF" and part["column_names"][-1].lower() in NAMES_OF_NOW:
            raise _wrong(f"{part['column_names'][-1]} depends on when or where the query runs; a result must depend on the rows alone")


def _is_ordered(select: dict[str, Any]) -> bool:
    """True when the order of the result is said."""
    while select["type"] == "CTE_NODE":
        select = select["child"]
    return any(modifier["type"] == "ORDER_MODIFIER" for modifier in select["modifiers"])


def _is_of_no_weight(part: dict[str, Any]) -> bool:
    """What every call has, and types of constants."""
    return (part["type"] == "ORDER_MODIFIER" and not part["orders"]) or part["type"].endswith("_TYPE_INFO")


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """All mappings in a syntax tree, from the outside in."""
    left = [node]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
            left += one.values()
        elif isinstance(one, list):
            left += one


def _wrong(message: str) -> OptionError:
    return OptionError("query", message)
