"""Names of files made of values of the rows: `{city}/{sensor}.parquet`, whatever the values are.

A value keeps letters, digits, `.`, `_` and `-`; each other byte is `=` and two hexadecimal digits, and so is a dot at its start. Different
values have different names, and none leaves the folder. A long value ends with its digest, and so does a long name. No name ends with a
dot and four digits or more, as those number the parts of a file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
from attrs import frozen

from lakeward import OptionError, Rejected
from lakeward.grouping import Array, group_codes, undecodable

END = ".parquet"
PIECE = re.compile(r"\{([^{}]*)\}|([^{}]+)|[{}]")
PLAIN = re.compile(r"[A-Za-z0-9._=/ -]*")
UNSAFE, FIRST_DOT, NUMBER = re.compile(r"[^A-Za-z0-9._-]"), re.compile(r"^\."), re.compile(r"\.(?=\d{4,}$)")
LONGEST, KEPT = 120, 80  # characters of a value in a name
MOST = 240  # characters of a name: file systems take 255, and there are parts and their numbers
KINDS = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_date, pa.types.is_decimal,
    pa.types.is_null,
)  # fmt: skip


@frozen
class Template:
    """The parts of an option such as `{city}/{sensor}.parquet`."""

    text: str
    parts: tuple[tuple[str, str], ...]
    """Column and plain text in turn: of each pair one is empty."""

    @classmethod
    def of(cls, text: str, option: str) -> Template:
        """Raises OptionError for what could be no name."""
        parts = []
        for piece in PIECE.finditer(text):
            column, plain = piece[1], piece[2]
            if column is None and plain is None:
                raise OptionError(option, f"{text!r} has a brace without its other one; write columns as {{city}}")
            if column == "":
                raise OptionError(option, f"{text!r} has {{}} without the name of a column in it")
            parts.append((column or "", plain or ""))
        plain = "".join(plain for _, plain in parts)
        steps = "".join(f"{column and 'x'}{plain}" for column, plain in parts).split("/")
        if not PLAIN.fullmatch(plain) or text.startswith("/") or any(step.startswith((".", " ")) or not step.strip() for step in steps):
            raise OptionError(
                option, f"{text!r} is no name: letters, digits, blanks and . _ = - with / between folders, none that begins with a dot"
            )
        if not text.endswith(END) or steps[-1] == END:
            raise OptionError(option, f"{text!r} must end with a name and {END}")
        return cls(text, tuple(parts))

    @property
    def columns(self) -> list[str]:
        """Names of the columns, each once."""
        return list(dict.fromkeys(column for column, _ in self.parts if column))

    def check(self, schema: pa.Schema, option: str) -> None:
        """Raises OptionError when the rows cannot say the names."""
        for column in self.columns:
            place = schema.get_field_index(column)
            if place < 0:
                make = "correct it, or add the column with schematize or with path_columns of the source"
                raise OptionError(option, f"the rows have no column {column!r}; {make}")
            kind = schema.field(place).type
            if not any(fits(kind.value_type if isinstance(kind, pa.DictionaryType) else kind) for fits in KINDS):
                raise OptionError(option, f"column {column!r} is {kind}, and names are made of text, whole numbers and dates; cast it")

    def names(self, rows: pa.RecordBatch) -> tuple[Array, list[str], Mapping[int, str]]:
        """For each row the number of its name, the names, and by the number why there is none. Rejected for text that is not UTF-8."""
        try:
            codes, keys = group_codes(rows, pa.schema([(column, pa.string()) for column in self.columns]))
        except UnicodeDecodeError:
            where = undecodable(rows, self.columns).tolist()
            raise Rejected("the name of the file is made of text that is not UTF-8", where) from None
        names, missing = [], {}
        for number, key in enumerate(keys):
            values = dict(zip(self.columns, key, strict=True))
            empty = next((column for column, value in values.items() if not value), "")
            if empty:
                missing[number] = f"{empty} is {'empty' if values[empty] == '' else 'missing'}, and the name of the file is made of it"
            names.append("" if empty else self._name(values))
        return codes, names, missing

    def _name(self, values: Mapping[str, str]) -> str:
        name = "".join(safe(values[column]) if column else plain for column, plain in self.parts).removesuffix(END)
        return NUMBER.sub("=2E", "/".join(map(_shortened, name.split("/")))) + END


def safe(value: str) -> str:
    """A value as a part of a name."""
    text = FIRST_DOT.sub(
        "=2E", UNSAFE.sub(lambda match: "".join(f"={byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass")), value)
    )
    return text if len(text) <= LONGEST else f"{text[:KEPT]}=h{_digest(value)}"


def _shortened(name: str) -> str:
    return name if len(name) <= MOST else f"{name[:KEPT]}=h{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def grouped(codes: Array, names: Sequence[str], missing: Mapping[int, str]) -> tuple[dict[str, list[int]], dict[int, str]]:
    """Places of the rows of each name, and by place why a row has none. Keys that mean the same name are one."""
    places: dict[str, list[int]] = {}
    bad: dict[int, str] = {}
    order = codes.argsort(kind="stable")
    ends = [*(codes[order][1:] != codes[order][:-1]).nonzero()[0] + 1, len(order)] if len(order) else []
    start = 0
    for end in ends:
        number = int(codes[order[start]])
        found = order[start:end].tolist()
        if number in missing:
            bad |= dict.fromkeys(found, missing[number])
        else:
            places.setdefault(names[number], []).extend(found)
        start = end
    return {name: sorted(found) for name, found in places.items()}, bad
