"""`lakeward privacy-report`: attack what a pipeline releases, before somebody else does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lakeward.cli.answer import answer
from lakeward.cli.places import json_option, pipeline_file, select_option, set_option
from lakeward.cli.table import table
from lakeward.cli.tapping import Taps, tapped
from lakeward.errors import LakewardError

ROWS = 1_000_000
EPILOG = """\b
Examples:
  lakeward privacy-report pipeline.yaml
  lakeward privacy-report pipeline.yaml --limit 100000 --json
  lakeward privacy-report pipeline.yaml --set transforms.private.cell_m=500     what if"""
MEANING = """\
RMS and median are what is left of the secret, in metres. Noise that sticks keeps them up however many reports are averaged, as far as
a device stays in one cell; FRESH is what would be left if each report had noise of its own. Who moves through many cells tells the
mean of its way: that is a property of averages, and no longer a place where it was."""


@click.command("privacy-report", short_help="Attack the positions that a pipeline releases.", epilog=EPILOG)
@pipeline_file
@click.option(
    "--limit", type=click.IntRange(min=1), default=ROWS, show_default=True, metavar="ROWS", help="Read so many rows of the source."
)
@select_option
@set_option
@json_option
def privacy_report(file: Path, limit: int, select: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Read the source of the pipeline in FILE from its start, and attack what each of its gps_fuzz transforms makes of the rows.

    Nothing is delivered, recorded or remembered, and no true position is printed. The exit code is 0 whatever the figures are.
    """
    with tapped(file, overrides, select) as taps:
        found = _found(taps, limit)
    answer(found, as_json, lambda: _in_words(found))


def _found(taps: Taps, limit: int) -> dict[str, Any]:
    from lakeward_plugins.transforms.gps_fuzz.report import Measured
    from lakeward_plugins.transforms.gps_fuzz.transform import GpsFuzz

    measured = {name: Measured(one) for name, one in taps.transforms.items() if isinstance(one, GpsFuzz)}
    if not measured:
        raise LakewardError("no transform of this pipeline is `use: gps_fuzz`; `--select` chooses another graph")
    for name, one in measured.items():
        with _progress(name) as show:
            for before, after in taps.rows(name, limit):
                one.add(before, after)
                show(before.num_rows)
    columns = {column for one in measured.values() for column in (one.transform.fields.lat, one.transform.fields.lon)}
    bare = sorted(sink for sink, schema in taps.passing_by(measured).items() if columns & {*schema.names})
    return {"transforms": {name: one.result() for name, one in measured.items()}, "sinks_with_true_positions": bare}


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; it has no end, as only the source knows how many rows there are."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(iter(int, 1), label=f"{name}: rows", show_pos=True, file=sys.stderr) as bar:
        yield bar.update


# -- in words ----------------------------------------------------------------------------------------------------------


def _in_words(found: Mapping[str, Any]) -> str:
    parts = [_one_in_words(name, one) for name, one in found["transforms"].items()]
    bare = found["sinks_with_true_positions"]
    past = f"TRUE POSITIONS go to {', '.join(bare)}, past gps_fuzz" if bare else "no sink takes positions past gps_fuzz"
    return "\n\n".join([*parts, past, MEANING] if any(one["devices"] for one in found["transforms"].values()) else [*parts, past])


def _one_in_words(name: str, one: Mapping[str, Any]) -> str:
    key, off = f", key {one['key_id']}" if one["key_id"] else "", "" if one["enabled"] else ", SWITCHED OFF"
    lines = [f"{name}: mode {one['mode']}{key}{off}"]
    lines.append(
        f"{one['rows']:,} rows, {one['rows_with_position']:,} with a position, {one['rows_released_with_position']:,} released with one, "
        f"of {one['devices']:,} devices"
    )
    if one["devices"]:
        lines += ["", *_figures(one)]
    told = [f"{column} (in {rows:,} rows)" for column, rows in one["carried"].items()]
    chance = "; in a few rows of many it may be chance, else name the column in scrub_fields" if told else ""
    return "\n".join([*lines, "", f"columns with the true latitude or longitude to four decimals: {', '.join(told) or 'none'}{chance}"])


def _figures(one: Mapping[str, Any]) -> list[str]:
    each, moved = one["outputs_per_device"], one["displacement_m"]
    rows = []
    for share, words in (("p50", "half of the rows"), ("p95", "95 % of the rows")):
        theory = moved[share]["theory"]
        expected = (_metres(theory["metres"]), f"{_metres(theory['low'])} to {_metres(theory['high'])}") if theory else ("", "")
        rows.append((words, _metres(moved[share]["measured"]), *expected))
    attacks = []
    for attack in [*one["averaging"], one["cell_mean"]]:
        what = f"{attack['reports']:,} report{'s' * (attack['reports'] > 1)}" if attack["reports"] else "outputs, each once"
        attacks.append((what, attack["devices"], *(_metres(attack[name]) for name in ("rms", "median", "fresh"))))
    return [
        table(("moved by up to (m)", "measured", "theory", "19 times in 20"), rows),
        "",
        f"distinct outputs of a device: {each['least']:,} to {each['most']:,}, median {each['median']:g}",
        "",
        table(("mean of", "devices", "rms (m)", "median (m)", "fresh (m)"), attacks),
    ]


def _metres(value: float) -> str:
    return f"{value:,.1f}"
