"""What is recorded of a batch in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from lakeward.components import Event, Position
from lakeward.deadletters.box import Closing, DeadLetter


@frozen
class Share:
    """One sink's part of a batch, spooled."""

    sink: str
    file: str
    rows: int
    bytes: int
    sha256: str
    part: tuple[int, int] | None = None
    """As in its token."""


@frozen
class Recording:
    """All of a batch that is recorded in one transaction."""

    sequence: int
    epoch: int
    position: Position | None
    states: Mapping[str, bytes]
    shares: Sequence[Share]
    dead: Sequence[DeadLetter]
    totals: Mapping[tuple[str, str], int]
    """Rows to add, by kind (`rows`, `filtered`) and name."""
    events: Sequence[Event] = ()
    origin: str = ""
    closing: Closing = Closing((), {})
