"""Whether a statement only reads."""

from __future__ import annotations

import re

from lakeward import Refused

COMMENT, QUOTED = r"--[^\n]*|/\*.*?\*/", r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`"
HIDDEN = re.compile(f"({COMMENT})|(?:{QUOTED})", re.DOTALL)
RAW = re.compile(r"\br['\"]", re.IGNORECASE)  # a string in which a backslash is one, so that it may end elsewhere than it seems
READS = ("select", "show", "describe", "desc", "with")
WRITES = re.compile(
    r"\b(?:insert|merge|update|delete|create|drop|alter|truncate|copy|grant|revoke|put|remove|call|execute|set|refresh|optimize|vacuum)\b"
)


def require_reading(sql: str) -> None:
    """Raises Refused unless it is one query. WITH may begin an INSERT as well, so no word that changes anything may stand in it."""
    text = HIDDEN.sub(lambda found: " " if found[1] else " x ", sql).lower().strip().rstrip(";").strip()
    first = re.match(r"[a-z]*", text.lstrip("( \n\t"))
    if not first or first[0] not in READS:
        raise Refused("a query must begin with SELECT, WITH, SHOW or DESCRIBE")
    if ";" in text:
        raise Refused("a query must be one statement; take out the semicolon")
    if first[0] == "with" and RAW.search(sql):
        raise Refused("a query that begins with WITH must not have raw strings in it")
    if first[0] == "with" and (word := WRITES.search(text)):
        raise Refused(f"a query must not have the word {word[0].upper()} in it; quote it with `backticks` if it is a name")
