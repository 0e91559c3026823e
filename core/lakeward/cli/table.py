"""Plain tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns under their headers, numbers to the right."""
    given = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in given]
    numeric = [all(_is_number(row[index]) for row in given) for index in range(len(headers))]
    widths = [max([len(header), *(len(row[index]) for row in cells)]) for index, header in enumerate(headers)]

    def line(row: Sequence[str]) -> str:
        aligned = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric, strict=True))
        return "  ".join(aligned).rstrip()

    return "\n".join([line([header.upper() for header in headers]), *map(line, cells)])


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = "" if value is None else str(value)
    # a line break would tear the table, and what a sensor wrote may hold codes that the terminal obeys
    return "".join(char if char.isprintable() else " " for char in text)
