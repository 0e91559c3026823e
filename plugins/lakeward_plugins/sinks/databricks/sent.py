"""Names of parcels, and whether those that the table has rows of can be of this state directory."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from lakeward import Parcel
from lakeward.components import Token

NAME = re.compile(r"(.*-\d{10})(\.\d{7}-\d{7})?-[0-9a-f]{16}")
"""Whole parcel, rows of it when it was parted, and what the file has in it."""


def name_of(parcel: Parcel) -> str:
    """Of the parcel, among all that any machine sends into this table, also one with a copy of our state directory."""
    return f"{parcel.token.pipeline}-{parcel.token.name}-{parcel.sha256[:16]}"


def later_names(token: Token) -> tuple[str, str]:
    """The least that this parcel or a later one of this state can have, and one that is greater than all of them."""
    ours = f"{token.pipeline}-{token.sink}-{token.life}-{token.epoch:04d}-"
    return f"{ours}{token.sequence:010d}", f"{ours}:"  # the letter after 9


def by_parcel(names: Iterable[str]) -> Mapping[str, set[str]]:
    """The names of each whole parcel."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in names:
        if match := NAME.fullmatch(name):
            found[match[1]].add(name)
    return found


def clash(name: str, sent: Mapping[str, set[str]]) -> str:
    """A name that is there and says that rows under our token are not these, or that they are there in another cut; empty when none does.

    A parcel that was parted is not sent as a whole again, and the parts of one parcel are not of the same rows.
    """
    ours = NAME.fullmatch(name)
    if ours:
        for other in sorted(sent.get(ours[1], ())):
            theirs = NAME.fullmatch(other)
            if theirs and other != name and (theirs[2] == ours[2] or not theirs[2] or not ours[2]):
                return other
    return ""
