"""Which table of a database is meant, and what its columns are, out of what SQLite tells of all its tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from lakeward import ROW, OptionError
from lakeward_plugins.sources.sqlite.connection import Query
from lakeward_plugins.sources.sqlite.table import Column, Kind, Table, literal

CATALOG = r"""
SELECT l.name AS "table", l.type AS kind, l.wr AS without_rowid, c.name, c.type AS declared, c.pk, c.hidden,
       EXISTS (SELECT 1 FROM pragma_index_list(l.name) WHERE origin = 'pk') AS key_index,
       (SELECT s.sql FROM sqlite_schema AS s WHERE s.type = 'table' AND s.name = l.name) AS sql
FROM pragma_table_list AS l JOIN pragma_table_xinfo(l.name) AS c
WHERE l.schema = 'main' AND l.name NOT LIKE 'sqlite\_%' ESCAPE '\' AND l.type <> 'shadow' AND ({0} IS NULL OR l.name = {0})
ORDER BY l.name, c.cid"""
NOT_A_KEYWORD = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/""", re.DOTALL)
ROW_IDS = ("rowid", "_rowid_", "oid")

BEST_TIMES = ("timestamp", "ts", "datetime", "time", "date")
TIME_WORDS = {"timestamp", "ts", "datetime", "time", "date"}
TIME_NAMES = re.compile(r"(recorded|measured|observed|sampled|received|logged|read)_at")
# when a row was made is not when something was measured
BOOKKEEPING = re.compile(r"(created|updated|modified|inserted)(_at|_on|_time|_date|_ts)?|.*zone.*")

Entry = Mapping[str, str | int]
"""One column as SQLite tells it."""
Catalog = Mapping[str, list[Entry]]


def read_catalog(query: Query, name: str | None = None) -> Catalog:
    """All tables and views with their columns, or one of them."""
    tables: dict[str, list[Entry]] = {}
    for entry in query(CATALOG.format("NULL" if name is None else literal(name)), 10_000).to_pylist():
        tables.setdefault(entry["table"], []).append(entry)
    return tables


def find_table(
    catalog: Catalog,
    name: str | None,
    timestamp: str | None,
    columns: Sequence[str] | None,
    types: Mapping[str, Kind],
    by_time: bool = False,
) -> Table:
    """The table that the options mean. Raises `OptionError` when there is none, or more than one.

    `by_time` is for one that is read by its time column: any row ids will do.
    """
    name = _only_candidate(catalog, timestamp, by_time) if name is None else name
    _known("table", name, list(catalog), "table")
    entries = catalog[name]
    obstacle = _obstacle(name, entries, by_time)
    if obstacle:
        raise OptionError("table", obstacle)
    names = [str(entry["name"]) for entry in entries if entry["hidden"] != 1]
    for option, given in [("timestamp", timestamp), *((f"columns[{i}]", column) for i, column in enumerate(columns or ()))]:
        if given is not None:
            _known(option, given, names, "column")
    for column in types:
        _known(f"types.{column}", column, names, "column")
    time = timestamp or next(iter(_times(entries)), None)
    if by_time and time is None:
        raise OptionError("timestamp", f"`cursor: timestamp` needs a time column, and none of {name!r} looks like one; name it")
    key = _row_id(entries)
    chosen = names if columns is None else columns
    _unambiguous(chosen, key, types)
    declared = {str(entry["name"]): _declared(entry) for entry in entries}
    return Table(
        name,
        key,
        time,
        tuple(_column(column, declared[column], types.get(column)) for column in chosen),
        "AUTOINCREMENT" in NOT_A_KEYWORD.sub(" ", str(entries[0]["sql"])).upper(),
        tuple(names),
    )


def _known(option: str, name: str, names: Sequence[str], what: str) -> None:
    if name not in names:
        close = get_close_matches(name, names, 1, 0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"{what}s are {', '.join(names)}" if names else f"there is no {what} at all"
        raise OptionError(option, f"no {what} {name!r}; {hint}")


def _unambiguous(chosen: Sequence[str], key: str, types: Mapping[str, Kind]) -> None:
    if not chosen:
        raise OptionError("columns", "names no column; leave it out to read all")
    twice = next((name for index, name in enumerate(chosen) if name in chosen[:index]), None)
    if twice is not None:
        raise OptionError("columns", f"{twice!r} is there twice")
    if ROW in chosen:
        raise OptionError("columns", f"the table has a column {ROW!r}, a name kept for row keys; choose the other columns with `columns`")
    if types.get(key, "int") != "int":
        raise OptionError(f"types.{key}", f"{key!r} is the INTEGER PRIMARY KEY and stays an integer")


def _only_candidate(catalog: Catalog, timestamp: str | None, by_time: bool) -> str:
    """A sensor's table has a row id and a time; if one table alone has both, nobody needs to name it."""
    if not catalog:
        raise OptionError("path", "the database has no tables (yet)")
    able = [name for name, entries in catalog.items() if not _obstacle(name, entries, by_time)]
    named = [name for name in able if timestamp is None or any(entry["name"] == timestamp for entry in catalog[name])]
    found = [name for name in named if timestamp is not None or any(_times(catalog[name]))]
    if len(found) == 1 or (timestamp is not None and len(able) == 1):  # in the second case `timestamp` is the mistake
        return (found or able)[0]
    if found:
        raise OptionError("table", f"more than one table could be meant: {', '.join(found)}; name one with `table`")
    wanted = f"a column {timestamp!r}" if timestamp else "a time column"
    reasons = [_obstacle(name, entries, by_time) or f"{name!r} has no {wanted.removeprefix('a ')}" for name, entries in catalog.items()]
    has = wanted if by_time else f"both an INTEGER PRIMARY KEY and {wanted}"
    raise OptionError("table", f"no table has {has}: {'; '.join(reasons)}. Name one with `table`")


def _obstacle(name: str, entries: Sequence[Entry], by_time: bool) -> str:
    """Why the table cannot be read row after row, or nothing."""
    kind, key = entries[0]["kind"], [entry for entry in entries if entry["pk"]]
    if kind == "view":
        return f"{name!r} is a view, whose rows have no ids; name the table behind it"
    if kind != "table":
        return f"{name!r} is a virtual table, whose row ids mean nothing later"
    remedy = "the row id must be a column `id INTEGER PRIMARY KEY AUTOINCREMENT`"
    if entries[0]["without_rowid"]:
        return f"{name!r} is a WITHOUT ROWID table; {remedy}"
    if by_time:
        return "" if _row_id(entries) else f"{name!r} has columns with all names of the row id ({', '.join(ROW_IDS)})"
    remedy += "; or read it with `cursor: timestamp`"
    if not key:
        return f"{name!r} has no INTEGER PRIMARY KEY, and other row ids change in a VACUUM; {remedy}"
    # INT, or INTEGER ... DESC, or two columns: SQLite keeps an index for what is not its own row id
    if entries[0]["key_index"]:
        words = ", ".join(f"{entry['name']} {entry['declared']}".strip() for entry in key)
        return f"the primary key of {name!r} is ({words}), which is not the row id; {remedy}"
    return ""


def _row_id(entries: Sequence[Entry]) -> str:
    """The column that is the row id, or a name of it that no column hides; empty when there is none."""
    key = [str(entry["name"]) for entry in entries if entry["pk"]]
    if key and not entries[0]["key_index"]:
        return key[0]
    columns = {str(entry["name"]).lower() for entry in entries}
    return next((name for name in ROW_IDS if name not in columns), "")


def _times(entries: Sequence[Entry]) -> Iterator[str]:
    """Columns that look like the time of a reading, the most likely first."""
    names = [str(entry["name"]) for entry in entries if _is_time(str(entry["name"]), _declared(entry)) and not entry["pk"]]
    yield from sorted(names, key=lambda name: BEST_TIMES.index(name.lower()) if name.lower() in BEST_TIMES else len(BEST_TIMES))


def _is_time(name: str, declared: str) -> bool:
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    if BOOKKEEPING.fullmatch(plain):
        return False
    return bool(TIME_WORDS & set(plain.split("_")) or TIME_NAMES.fullmatch(plain) or re.search("DATE|TIME", declared.upper()))


def _declared(entry: Entry) -> str:
    return str(entry["declared"]).removesuffix("GENERATED ALWAYS").strip()  # which older SQLite counts as part of the type


def _column(name: str, declared: str, wanted: Kind | None) -> Column:
    kind, natural = _expected(declared.upper())
    return Column(name, declared, wanted or kind, natural and wanted in (None, kind))


def _expected(declared: str) -> tuple[Kind, bool]:
    """The kind of a declared type, and whether SQLite converts values to it: its rules of affinity, in its order."""
    rules: Sequence[tuple[str, Kind, bool]] = (
        ("^ANY$", "text", False),  # of a STRICT table: whatever was written
        ("INT", "int", True),
        ("CHAR|CLOB|TEXT", "text", True),
        ("BLOB", "binary", True),
        ("REAL|FLOA|DOUB", "float", True),
        ("BOOL", "int", True),
        ("DATE|TIME", "text", False),  # ISO text, Unix seconds or Julian days
        ("NUM|DEC", "float", False),
    )
    return next(((kind, natural) for pattern, kind, natural in rules if re.search(pattern, declared)), ("text", False))
