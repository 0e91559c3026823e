"""Plain tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns under their headers, numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [
        all(isinstance(row[index], (int, float)) for row in rows) if isinstance(rows, list) and rows else False
        for index in range(len(headers))
    ]
    widths = [max([len(header), *(len(row[index]) for row in cells)]) for index, header in enumerate(headers)]

    def line(row: Sequence[str]) -> str:
        aligned = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric, strict=True))
        return "  ".join(aligned).rstrip()

    return "\n".join([line([header.upper() for header in headers]), *map(line, cells)])


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)
