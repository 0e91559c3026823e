"""A note that a parcel is in, which a sink keeps beside the rows and writes in one transaction with them.

Only the newest of a sink is kept. Parcels come in order, so an older one, or other rows under the same name, are from a state directory
that was copied or restored: a sink that took them for delivered would lose them.
"""

from __future__ import annotations

from attrs import frozen

from lakeward.components import Parcel
from lakeward.errors import Refused

REMEDY = (
    "this state directory is a copy, or older than what was delivered; start anew with another --state-dir (every row is then sent again)"
)


@frozen
class Note:
    """What tells a parcel from all others."""

    id: str
    """Of the sink, in one life of its state and one epoch: of these, the newest note is kept."""
    parcel: str
    """For a person."""
    number: int
    """Grows from each parcel to the next."""
    content: int
    """60 bits of the SHA-256 of the spooled file."""

    def is_in(self, number: int | None, content: int | None, where: str) -> bool:
        """Whether this one is kept; `number` and `content` are of the one that is, None when none is. Raises Refused for a copy."""
        if number is None or number < self.number:
            return False
        if number > self.number:
            raise Refused(f"{where} has rows later than {self.parcel}: {REMEDY}")
        if content != self.content:
            raise Refused(f"{where} has other rows of the name {self.parcel}: {REMEDY}")
        return True


def note_of(parcel: Parcel) -> Note:
    """The note that the parcel is in."""
    token = parcel.token
    return Note(f"lakeward/{token.life}/{token.pipeline}/{token.sink}/{token.epoch}", str(token), token.number, int(parcel.sha256[:15], 16))
