"""What commands share that change what happens to rows: who asks for it and why, and from which position rows come again."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import Any

import click

from lakeward.components import Position, Rereading, Source
from lakeward.errors import LakewardError, OptionError

reason_option = click.option("--reason", required=True, help="Why; kept with who and when.")
by_option = click.option("--by", "who", metavar="WHO", help="Who asks for it [default: your login name].")
origin_option = click.option("--origin", default="", help="Which input, when the source has several; `lakeward position show` lists them.")


def asked_by(who: str | None) -> str:
    """The one who is named, or else the one who is logged in."""
    try:
        return who or getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        raise click.UsageError("this user has no name here; say who you are with --by") from None


def with_reason(reason: str) -> str:
    """The reason, which is more than blanks."""
    if not reason.strip():
        raise click.UsageError("--reason is empty; say why, for those who ask later")
    return reason.strip()


def reread(source: Source, first: int, last: int | None, epoch: int, origin: str) -> Position:
    """Where the rows with these keys come again, under another epoch. Raises LakewardError."""
    if not isinstance(source, Rereading):
        raise LakewardError("this source cannot read a part again; `lakeward position set --json-position` can set its position by hand")
    try:
        return source.reread(first, last, epoch, origin)
    except OptionError as error:
        raise LakewardError(f"the source cannot read that again: {error}") from error


def entries(position: Position) -> dict[str, Mapping[str, Any]]:
    """A position by input, where it has an entry for each; else as the one entry ""."""
    if position and all(isinstance(value, Mapping) for value in position.values()):
        return dict(position)
    return {"": position}


def shortened(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry for people, what they look for first; of what is long only how much it is."""
    names = [name for name in ("id", "epoch", "until", "anchors") if name in entry] if "id" in entry else sorted(entry)
    return {name: _size_of(entry[name]) for name in names}


def _size_of(value: Any) -> Any:
    return len(value) if isinstance(value, (list, Mapping)) else value


def summary(position: Position) -> Position:
    """A position for those who look on: of what is long only how much it is; `position show --json` has all."""
    parts = entries(position)
    return {name: _size_of(value) for name, value in position.items()} if "" in parts else {name: shortened(parts[name]) for name in parts}


def in_words(position: Position | None) -> str:
    """A position in one line."""
    if position is None:
        return "the start"
    texts = []
    for name, entry in entries(position).items():
        inside = ", ".join(f"{key} {value}" for key, value in shortened(entry).items() if key != "anchors")
        texts.append(f"{name}: {inside}" if name else inside)
    return "; ".join(texts) or "the start"
