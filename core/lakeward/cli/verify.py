"""`lakeward verify`: do the numbers and files of a state agree?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import asdict, frozen

from lakeward.cli.answer import answer
from lakeward.cli.places import json_option, pipeline_file, state_dir_of, state_dir_option
from lakeward.cli.table import table
from lakeward.errors import LakewardError

if TYPE_CHECKING:
    from lakeward.state import State

EPILOG = """\b
Examples:
  lakeward verify pipeline.yaml
  lakeward verify pipeline.yaml --json"""


@frozen
class Check:
    """One thing that must hold."""

    check: str
    ok: bool
    found: str


@click.command(short_help="Check that all numbers and spooled files agree.", epilog=EPILOG)
@pipeline_file
@state_dir_option
@json_option
def command(file: Path, state_dir: Path | None, as_json: bool) -> None:
    """Check the state of the pipeline in FILE: every row has one fate, every file is whole. Changes nothing; also while it runs."""
    from lakeward.state import State

    directory = state_dir_of(file, state_dir)
    with State.look(directory) as state:
        if state is None:
            raise LakewardError(f"{directory}: the pipeline has not run yet, so there is nothing to verify")
        checks = [*_database(state), *_numbers(state), *_files(state)]
    rows = [(one.check, "ok" if one.ok else "WRONG", one.found) for one in checks]
    ok = all(one.ok for one in checks)
    answer({"ok": ok, "checks": [asdict(one) for one in checks]}, as_json, lambda: table(("check", "result", "found"), rows))
    if not ok:
        raise click.exceptions.Exit(1)


def _database(state: State) -> Iterator[Check]:
    wrong = state.integrity()
    yield Check("state.db", not wrong, "; ".join(wrong) or "whole")


def _numbers(state: State) -> Iterator[Check]:
    from lakeward.deadletters.box import KEYED

    totals = state.totals()
    kinds = ("read", "delivered", "filtered", "dead", "held")
    read, delivered, filtered, dead, held = (totals.get("rows", {}).get(kind, 0) for kind in kinds)
    sign = "=" if read == delivered + filtered + dead + held else "≠"
    told = f"{read:,} {sign} {delivered:,} + {filtered:,} + {dead:,}" + (f" + {held:,} held back" if held else "")
    yield Check("rows read = delivered + filtered + dead", sign == "=", told)
    letters = sum(state.letters.counts(KEYED).values())  # a row may have one on each branch
    yield Check("dead rows have their letters", dead <= letters, f"{dead:,} rows, {letters:,} letters")
    waiting = state.waiting()
    for sink in sorted({*totals.get("spooled", {}), *waiting}):
        spooled, taken, refused = (totals.get(kind, {}).get(sink, 0) for kind in ("spooled", "delivered", "refused"))
        left = waiting.get(sink, (0, 0))[1]
        sign = "=" if spooled == taken + refused + left else "≠"
        told = f"{spooled:,} {sign} {taken:,} + {refused:,} + {left:,}"
        yield Check(f"sink {sink}: spooled = delivered + refused + waiting", sign == "=", told)


def _files(state: State) -> Iterator[Check]:
    folder, needed = state.directory / "spool", state.checksums()
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    bad = [name for name, sha256 in needed.items() if _sha256(folder / name) != sha256]
    if bad:  # a live run may have delivered and dropped them meanwhile
        from lakeward.state import State

        with State.look(state.directory) as now:
            bad = [name for name in bad if now and name in now.checksums()]
    told = f"{', '.join(bad)} damaged or gone" if bad else f"{len(needed):,} files"
    yield Check("spooled files are as they were written", not bad, told)
    # a run that is alive, or was killed, leaves files that are not recorded; the next one clears them away
    unclean = (state.directory / "state.db-wal").exists()
    orphans = sorted(there - needed.keys())
    told = f"{', '.join(orphans[:3])}{' ...' if len(orphans) > 3 else ''}" if orphans else "none"
    yield Check("spooled files that nobody waits for", unclean or not orphans, told)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
