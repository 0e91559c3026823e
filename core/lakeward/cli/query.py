"""`lakeward query`: look at what the sinks have."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakeward.cli.logs import start_logging
from lakeward.cli.places import json_option, pipeline_file, select_option, set_option

if TYPE_CHECKING:  # `lakeward query --help` must not pay for pyarrow
    from lakeward.cli.asking import Answer

CHUNK = 1000
"""Rows that are printed at once."""
WIDEST = 100
"""Characters of a value that a table on a terminal shows."""
EPILOG = """\b
Examples:
  lakeward query pipeline.yaml INFO                               of each sink: rows, columns, newest time, version
  lakeward query pipeline.yaml --sink readings --count            how many rows
  lakeward query pipeline.yaml --sink readings --city Oslo --limit 5    the five newest of a city
  lakeward query pipeline.yaml "SELECT count(*) FROM readings"    sinks by their names
  lakeward query pipeline.yaml "SELECT sensor_id, avg(temperature) FROM data GROUP BY 1" --sink readings --csv

\b
SQL is DuckDB's, with sinks as tables by their names, and `data` for the sink of --sink; that of the service for
databricks and cosmos. Only statements that read are let through.
Rows are printed as they come; a table on a terminal shortens long values, --csv and --json do not."""


@click.command(short_help="Look at what the sinks have.", epilog=EPILOG)
@pipeline_file
@click.argument("sql", required=False)
@click.option("--sink", metavar="NAME", help="Which sink to ask, when there are several.")
@click.option("--count", is_flag=True, help="How many rows, instead of SQL.")
@click.option("--city", metavar="NAME", help="Instead of SQL: only rows of this city; as --where city=NAME.")
@click.option("--where", "wanted", multiple=True, metavar="COLUMN=TEXT", help="Instead of SQL: only rows with this text in a column.")
@click.option("--limit", type=click.IntRange(0), help="Rows to show at most: instead of SQL the newest ones [default: 10]; 0 for all.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the rows as CSV.")
@select_option
@set_option
@json_option
def command(
    file: Path, sql: str | None, sink: str | None, count: bool, city: str | None, wanted: tuple[str, ...], limit: int | None,
    as_csv: bool, select: str | None, overrides: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Ask the sinks of FILE for what they have: SQL, INFO, or the newest rows. Nothing is changed."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two ways to print the same; give one of them")
    chosen = [*([("city", city)] if city is not None else []), *map(_condition, wanted)]
    if sql is not None and (count or chosen):
        raise click.UsageError("--count, --city and --where make a query; give either them or SQL")
    start_logging("text", "warning")
    from lakeward.cli.asking import Lake
    from lakeward.cli.running import planned
    from lakeward.config import load

    with planned(load(file, overrides), select) as (pipeline, _):
        lake = Lake(pipeline)
        if sql is not None and sql.strip().upper() == "INFO":
            _tell(lake.information(sink), as_csv, as_json, commas=True)
        elif sql is not None:
            _tell(lake.query(sql, sink, limit or None), as_csv, as_json)
        else:
            _tell(lake.newest(sink, chosen, count=count, limit=10 if limit is None else limit), as_csv, as_json)


def _condition(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not COLUMN=TEXT", param_hint="--where")
    return name, value


def _tell(found: Answer, as_csv: bool, as_json: bool, *, commas: bool = False) -> None:
    """Rows are printed as they come."""
    from lakeward.secrets import redact

    names = _apart(found.names)
    lines = _json(names, found) if as_json else _csv(names, found) if as_csv else _tables(names, found, commas)
    for text in lines:
        click.echo(redact(text))


def _chunks(found: Answer) -> Iterator[list[tuple[Any, ...]]]:
    from lakeward.cli.asking import values

    for batch in found.batches:
        for start in range(0, batch.num_rows, CHUNK):
            yield list(zip(*(values(column) for column in batch.slice(start, CHUNK).columns), strict=True))


def _json(names: list[str], found: Answer) -> Iterator[str]:
    import json

    before = "["
    for rows in _chunks(found):
        text = json.dumps([dict(zip(names, map(_plain, row), strict=True)) for row in rows], indent=2)
        yield before + text[1:-2]
        before = ","
    yield "[]" if before == "[" else "]"


def _csv(names: list[str], found: Answer) -> Iterator[str]:
    yield _csv_lines([names])
    yield from map(_csv_lines, _chunks(found))


def _csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_text(value) for value in row] for row in rows)
    return text.getvalue().removesuffix("\n")


def _tables(names: list[str], found: Answer, commas: bool) -> Iterator[str]:
    """One, or one for each thousand rows."""
    from lakeward.cli.table import table

    for number, rows in enumerate(chain(_chunks(found), [[]])):
        if rows or not number:
            plain = ([value if isinstance(value, (int, float)) else _text(value) for value in map(_number, row)] for row in rows)
            yield table(names, plain, () if commas else names, widest=WIDEST)


def _apart(names: list[str]) -> list[str]:
    """A name that comes twice, as a join gives it, has a number the second time."""
    seen: dict[str, int] = {}
    apart = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        apart.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return apart


def _plain(value: Any) -> Any:
    """What JSON can say; numbers that it has no word for become text, as does what is no number."""
    value = _number(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and value - value == 0):
        return value
    return _text(value)


def _number(value: Any) -> Any:
    """A sum of whole numbers comes as a decimal with many digits and none behind the point."""
    return int(value) if hasattr(value, "as_tuple") and value.as_tuple().exponent == 0 else value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.hex()
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
