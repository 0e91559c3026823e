"""Plain tables for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterable, Sequence

LEAST = 20  # characters that are left of the last column


def table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], keys: Collection[str] = (), *, fit: bool = False, widest: int = 0
) -> str:
    """Aligned columns under their headers, numbers to the right; those of `keys` as commands take them, without commas.

    If there is another way to see all of it: with `fit` the last column is shortened in its middle where a terminal is too narrow, and
    with `widest`, characters, each value that is longer, on a terminal.
    """
    given = [list(row) for row in rows]
    cells = [[_cell(value, name in keys) for name, value in zip(headers, row, strict=True)] for row in given]
    if widest and sys.stdout.isatty():
        cells = [[_shortened(cell, widest) for cell in row] for row in cells]
    numeric = [all(_is_number(row[index]) for row in given) for index in range(len(headers))]
    widths = [max([len(header), *(len(row[index]) for row in cells)]) for index, header in enumerate(headers)]
    if fit and sys.stdout.isatty():
        room = max(LEAST, shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * (len(headers) - 1))
        cells = [[*row[:-1], _shortened(row[-1], room)] for row in cells]

    def line(row: Sequence[str]) -> str:
        aligned = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric, strict=True))
        return "  ".join(aligned).rstrip()

    return "\n".join([line([header.upper() for header in headers]), *map(line, cells)])


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _shortened(text: str, room: int) -> str:
    """What a text begins with says what it is; what a path ends with tells it from others."""
    return text if len(text) <= room else f"{text[: (room - 1) // 2]}…{text[len(text) - room // 2 :]}"


def _cell(value: object, key: bool) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and not key:
        return f"{value:,}"
    text = "" if value is None else str(value)
    # a line break would tear the table, and what a sensor wrote may hold codes that the terminal obeys
    return "".join(char if char.isprintable() else " " for char in text)
