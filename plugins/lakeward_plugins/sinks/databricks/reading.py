"""Whether a statement only reads."""

from __future__ import annotations

import re

from lakeward import Refused

QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`", re.DOTALL)
RAW = re.compile(r"\br['\"]", re.IGNORECASE)  # a string in which a backslash is one, so that it may end elsewhere than it seems
READS = ("select", "show", "describe", "desc", "with")
WRITES = re.compile(
    r"\b(?:insert|merge|update|delete|create|drop|alter|truncate|copy|grant|revoke|put|remove|call|execute|set|refresh|optimize|vacuum)\b"
)


def require_reading(sql: str) -> None:
    """Raises Refused unless it is one query. WITH may begin an INSERT as well, so no word that changes anything may stand in it.

    Comments are refused: they end elsewhere in Databricks (nested, at a carriage return, on after a backslash) than one would think, and
    what is hidden in one here might be a statement there.
    """
    text = QUOTED.sub(" x ", sql).lower().strip().rstrip(";").strip()
    if "--" in text or "/*" in text:
        raise Refused("a query must have no comments in it; take them out")
    first = re.match(r"[a-z]*", text.lstrip("( \n\t"))
    if not first or first[0] not in READS:
        raise Refused("a query must begin with SELECT, WITH, SHOW or DESCRIBE")
    if ";" in text:
        raise Refused("a query must be one statement; take out the semicolon")
    if RAW.search(sql) and (first[0] == "with" or ";" in sql.strip().rstrip(";")):
        raise Refused("a query that begins with WITH, or has a semicolon in it, must not have raw strings in it")
    if first[0] == "with" and (word := WRITES.search(text)):
        raise Refused(f"a query must not have the word {word[0].upper()} in it; quote it with `backticks` if it is a name")
