"""Names in SQL: checked, so that they cannot be anything else, and quoted."""

from __future__ import annotations

import re

from attrs import frozen

from lakeward import OptionError

PART = r"(?:[^\s./`'\"\\\x00-\x1f\x7f]{1,255})"
TABLE = re.compile(rf"(`?){PART}\1(?:\.(`?){PART}\2){{0,2}}")
VOLUME = re.compile(rf"(?:/Volumes/({PART})/({PART})/({PART})|({PART})\.({PART})\.({PART}))((?:/{PART})*)/?")


@frozen
class TableName:
    """`catalog.schema.name`; what is left out, the warehouse adds."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> TableName:
        """Raises OptionError."""
        if not TABLE.fullmatch(text):
            raise OptionError("table", f"{text!r} is not a table: write catalog.schema.name, without blanks, slashes and quotes in a name")
        return cls(tuple(part.strip("`") for part in text.split(".")))

    @property
    def sql(self) -> str:
        """Quoted."""
        return ".".join(map(quoted, self.parts))

    def __str__(self) -> str:
        return ".".join(self.parts)


def volume_path(text: str) -> str:
    """`/Volumes/catalog/schema/volume`, with a folder behind it or without. Raises OptionError."""
    match = VOLUME.fullmatch(text)
    if not match or {".", ".."} & set(text.split("/")):
        raise OptionError("volume", f"{text!r} is not a volume: write catalog.schema.volume, or /Volumes/catalog/schema/volume/folder")
    return "/".join(["/Volumes", *(part for part in match.groups()[:6] if part)]) + match[7]


def quoted(name: str) -> str:
    """A column or table."""
    return f"`{name.replace('`', '``')}`"


def literal(text: str) -> str:
    """A string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
