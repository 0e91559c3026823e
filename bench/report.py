"""Figures as Markdown: medians (least-most)."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cost import Cost

BEGIN, END = "<!-- written by make bench -->\n", "<!-- end -->\n"


@dataclass
class Measured:
    """One contender with one number of rows."""

    name: str
    rounds: int
    costs: list[Cost] = field(default_factory=list)
    out_mb: float = 0.0


@dataclass(frozen=True)
class Small:
    """What costs when there is little to do."""

    idle: Sequence[Cost]
    help: Sequence[Cost]
    libraries: Sequence[Cost]
    rows: int
    batches: Sequence[Cost]
    waiting: float
    """CPU seconds a second."""


def write(file: Path, tables: Mapping[int, Sequence[Measured]], small: Small) -> None:
    """Put the section in its place in the file, instead of the last one."""
    replace(file, BEGIN, "\n".join([heading(), *(line for rows, found in tables.items() for line in table(rows, found)), *few(small), ""]))


def replace(file: Path, begin: str, section: str) -> None:
    """Put a section where the last one of its kind stood."""
    before, _, rest = file.read_text().partition(begin)
    after = rest.partition(END)[2]
    file.write_text(before + begin + section + END + after)
    print(section)


def heading() -> str:
    """When and where."""
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    load = os.getloadavg()[2]
    return f"""## {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {system}, Python {platform.python_version()}

Load average of the last 15 minutes at the end: {load:.1f} (one measured process at a time makes about 1).
"""


def table(rows: int, found: Sequence[Measured]) -> list[str]:
    """One line a contender; the ratio is of CPU, to the plain loop in the same turn."""
    plain = next(one for one in found if one.name.startswith("plain")).costs
    lines = [
        f"### {rows:,} rows\n",
        "| SQLite to Parquet | CPU | CPU to plain loop | wall | peak memory | written | runs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        ratios = [mine.cpu / theirs.cpu for mine, theirs in zip(one.costs, plain, strict=False)]
        cells = [spread([each.cpu for each in one.costs], " s"), spread(ratios, " x"), spread([each.wall for each in one.costs], " s")]
        cells += [spread([each.peak_mb for each in one.costs], " MB", 0), f"{one.out_mb:.0f} MB", str(len(one.costs))]
        lines.append(f"| {one.name} | {' | '.join(cells)} |")
    return [*lines, ""]


def few(small: Small) -> list[str]:
    """The same for what is small."""
    lines = ["### Few rows\n", "| what | CPU | wall | peak memory | runs |", "| --- | --- | --- | --- | --- |"]
    for name, costs in (
        ("`lakeward run --once`, nothing new", small.idle),
        ("the libraries that it needs, imported", small.libraries),
        ("`lakeward --help`", small.help),
        (f"{small.rows:,} rows in batches of 1,000", small.batches),
    ):
        cells = [spread([each.cpu for each in costs], " s"), spread([each.wall for each in costs], " s")]
        lines.append(f"| {name} | {' | '.join(cells)} | {spread([each.peak_mb for each in costs], ' MB', 0)} | {len(costs)} |")
    speed = small.rows / statistics.median(each.cpu for each in small.batches)
    return [
        *lines,
        "",
        f"Batches of 1,000: {speed:,.0f} rows per CPU second, with start-up. One row a second, looked for each second: "
        f"{small.waiting:.1%} of one core, over a minute.",
    ]


def spread(values: Sequence[float], unit: str, digits: int = 2) -> str:
    """The median, and what it lies between."""
    middle, least, most = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle}{unit} ({least}-{most})" if len(values) > 1 else f"{middle}{unit}"
