"""Limits that are read from CSV files: a curve, and limits for each time of the year or place."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from lakeward.grouping import Array

TIMES = ("month", "day_of_year", "week", "quarter", "hour")
"""Parts of a time that a climatology may go by: 1 to 12, 1 to 366, ISO weeks 1 to 53, 1 to 4, 0 to 23; in UTC."""
COLUMNS = ("fail_low", "fail_high", "suspect_low", "suspect_high")
SHORT = {"suspect_low": "low", "suspect_high": "high"}
"""A table with limits of one kind may call them so; they are suspect."""


@frozen(eq=False)
class Curve:
    """Points of a curve, ascending in x; between them it is straight."""

    x: Array
    y: Array

    def at(self, x: Array) -> Array:
        """NaN outside of the curve."""
        return np.interp(x, self.x, self.y, left=math.nan, right=math.nan)


@frozen(eq=False)
class Climatology:
    """Limits by key. What is not in the table has none."""

    by: tuple[str, ...]
    values: tuple[list[Any], ...]
    """For each part of the key the values in the table."""
    keys: Array
    """For each line the places of its key among the values, as one number; ascending."""
    limits: Array
    """fail_low, fail_high, suspect_low, suspect_high x line; infinite for no limit."""

    def lines(self, places: Sequence[Array]) -> Array:
        """For each row its line, -1 for none; from the place of each part of its key among the values, -1 for none."""
        codes = np.zeros(len(places[0]), np.int64)
        for place, values in zip(places, self.values, strict=True):
            codes = np.where((place < 0) | (codes < 0), -1, codes * len(values) + place)
        found = np.minimum(np.searchsorted(self.keys, codes), len(self.keys) - 1)
        return np.where(self.keys[found] == codes, found, -1)


def read_curve(path: Path, x: str, y: str) -> Curve:
    """From the columns of these names, or without them from the first two. Raises ValueError."""
    header, lines = _read(path)
    names = (x, y) if x in header and y in header else tuple(header[:2])
    if len(names) < 2:
        raise ValueError(f"{path.name} has no columns {x} and {y}")
    points = sorted((_number(path, line, names[0]), _number(path, line, names[1])) for line in lines)
    if len(points) < 2 or any(one[0] == other[0] for one, other in pairwise(points)):
        raise ValueError(f"{path.name} needs at least two points, each with its own {names[0]}")
    if not np.isfinite(points).all():
        raise ValueError(f"{path.name} needs a number in each line of {names[0]} and {names[1]}")
    return Curve(*np.array(points).T)


def read_climatology(path: Path, by: Sequence[str]) -> Climatology:
    """From the columns of `by`, and those with limits, in which nothing means no limit. Raises ValueError."""
    header, lines = _read(path)
    names = [name if name in header else SHORT.get(name, "") for name in COLUMNS]
    if lost := [name for name in by if name not in header]:
        raise ValueError(f"{path.name} has no column {', '.join(lost)}")
    if not lines or not set(names) & set(header):
        raise ValueError(f"{path.name} needs lines, and at least one of the columns {', '.join(COLUMNS)}")
    open_ends = (-math.inf, math.inf) * 2
    limits = np.array([[_number(path, line, name, end) for name, end in zip(names, open_ends, strict=True)] for line in lines]).T
    for low, high in ((0, 1), (2, 3)):
        if (limits[low] > limits[high]).any():
            raise ValueError(f"{path.name} has a line whose {COLUMNS[low]} is above its {COLUMNS[high]}")
    keys = [tuple(int(_number(path, line, name)) if name in TIMES else line[name] for name in by) for line in lines]
    values = tuple(sorted({key[place] for key in keys}) for place in range(len(by)))
    codes = np.zeros(len(keys), np.int64)
    for place, known in enumerate(values):
        codes = codes * len(known) + np.array([known.index(key[place]) for key in keys])
    if len(set(codes.tolist())) < len(codes):
        raise ValueError(f"{path.name} has two lines with the same {', '.join(by)}")
    order = np.argsort(codes)
    return Climatology(tuple(by), values, codes[order], limits[:, order])


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True, restval="")
        return [name.strip() for name in reader.fieldnames or ()], [
            {str(key).strip(): str(text) for key, text in line.items()} for line in reader
        ]


def _number(path: Path, line: dict[str, str], name: str, nothing: float = math.nan) -> float:
    text = line.get(name, "").strip()
    try:
        return float(text) if text else nothing
    except ValueError:
        raise ValueError(f"{path.name}: {text!r} in column {name} is no number") from None
