"""Sessions of one key, row by row: for keys with rows so old that they may meet sessions which are over.

Only here a session that came out can grow, or be joined to another one. The session with the earliest start goes on under its identity;
of the others, and of one whose start moves, what came out is taken back.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field, frozen


@frozen
class Pause:
    """What ends a session, and when it comes out; durations in microseconds."""

    gap: int
    lateness: int
    partial: bool
    """Each row makes its session come out, before it is over too."""
    never_before_final: bool
    """Sessions come out once, so none is ever taken back."""


@define(eq=False)
class Session:
    """A session, and what was told of it."""

    slot: int
    first: int
    last: int
    out: bool = False
    """It came out, or would have if the batch had ended then."""
    closed: bool = False
    revision: int = 0
    renamed: bool = False
    """It has another start, and so another identity, than in the batch before."""
    ended: bool = False
    """It was over at some row of this batch, and no row has changed it since."""


@frozen
class Retraction:
    """A session that came out and is no more."""

    start: int
    end: int
    revision: int


@define(eq=False)
class SessionsOfKey:
    """The sessions of one key that can still change."""

    pause: Pause
    joined: dict[int, int]
    """From slots that are no more to the slot that took them up."""
    sessions: list[Session] = field(factory=list)
    gone: list[Session] = field(factory=list)
    """Those that became final in this batch."""
    retracted: list[Retraction] = field(factory=list)

    def settle(self, watermark: int) -> None:
        """Note which are over, and which can change no more."""
        for session in self.sessions:
            end = session.last + self.pause.gap
            if end <= watermark and not session.closed:
                session.closed = session.ended = True
                if self.pause.partial and session.out:
                    session.revision += 1
                session.out = not self.pause.never_before_final
        over = [session for session in self.sessions if session.last + self.pause.gap + self.pause.lateness <= watermark]
        if over:
            self.gone += over
            self.sessions = [session for session in self.sessions if session not in over]

    def add(self, moment: int, watermark: int, slot: int) -> int | None:
        """Take a row at its moment; gives the slot of its session, `slot` if that is new, or None when it is late."""
        self.settle(watermark)
        gap = self.pause.gap
        met = sorted(self._met(moment), key=lambda session: session.first)
        end = max([moment, *(session.last for session in met)]) + gap
        if end + self.pause.lateness <= watermark:
            return None
        if met:
            session = self._join(moment, met)
        else:
            session = Session(slot, moment, moment)
            self.sessions.append(session)
        over = end <= watermark
        if session.out:
            session.revision += 1
        session.out |= self.pause.partial or (over and not self.pause.never_before_final)
        session.closed, session.ended = over, False
        return session.slot

    def _met(self, moment: int) -> Iterator[Session]:
        gap = self.pause.gap
        return (session for session in self.sessions if session.first - gap < moment < session.last + gap)

    def _join(self, moment: int, met: list[Session]) -> Session:
        first, others = met[0], met[1:]
        if moment < first.first and first.out:  # another start is another identity
            self._retract(first)
            first.out, first.revision, first.renamed = False, 0, True
        for other in others:
            if other.out:
                self._retract(other)
            self.joined[other.slot] = first.slot
            self.sessions.remove(other)
        first.first, first.last = min(first.first, moment), max(moment, *(session.last for session in met))
        return first

    def _retract(self, session: Session) -> None:
        self.retracted.append(Retraction(session.first, session.last + self.pause.gap, session.revision + 1))
