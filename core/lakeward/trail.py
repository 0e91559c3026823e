"""Where a sink wrote last: for sinks whose options say where rows go, and that cannot make a parcel visible and known in one step.

When a process dies in the middle of a delivery, and somebody then changes these options, the next process would write all of the parcel
in another place, and rows would be there twice. So a sink notes its place before it writes, and ends a parcel where it was begun.
"""

from __future__ import annotations

import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from attrs import define, evolve, field

from lakeward.components import Parcel, Receipt
from lakeward.durable import make_folder, sync
from lakeward.errors import Refused, Retry

log = logging.getLogger("lakeward.trail")
ANY = "?"
"""Instead of a token: no orderly end, so it may be any parcel."""


@define
class Trail:
    """A small JSON file in the state, with the name of the sink's kind, as no kind can ask about the places of another.

    In direct use, without a state, nothing is remembered.

    For each parcel: `ended_elsewhere`, then the writing, and `refused` when nothing was written for sure. `end` once, at the end.
    """

    file: Path | None = None
    _noted: dict[str, Any] | None = field(init=False, default=None)  # what the file says
    _begun: str = field(init=False, default="")  # the parcel that may be there
    _doubtful: bool = field(init=False, default=False)  # whether that was so before this attempt
    _writes: bool = field(init=False, default=False)
    _synced: bool = field(init=False, default=False)  # the name of the file

    def ended_elsewhere(self, parcel: Parcel, here: Mapping[str, Any], at: Callable[[dict[str, Any]], Placed]) -> Receipt | None:
        """The receipt of a parcel that was begun in another place, and is ended there. None for all others: these begin here.

        `at` makes the sink of a place. Raises Retry or Refused when it cannot be seen whether the parcel was begun there.
        """
        token = parcel.token.name
        if place := self.elsewhere(token, here):
            with closing(at(place)) as earlier:
                try:
                    held = earlier.holds(parcel)
                except (Refused, Retry, OSError) as error:
                    raise self.unseen(token, error) from error
                if held:
                    log.warning("%s was begun before the options of this sink changed, so it is ended where they led: %s", token, place)
                    return earlier.write(parcel)
        for other in sorted(self.file.parent.glob("*.json")) if self.file and not self.file.exists() else ():
            log.warning("this sink was of another kind; rows of %s may be there as well, see %s", token, other)
        self.begin(token, here)
        return None

    def elsewhere(self, token: str, here: Mapping[str, Any]) -> dict[str, Any] | None:
        """The place other than `here` where this parcel may have been begun."""
        noted = self._read()
        begun_there = noted.get("place") not in (None, dict(here)) and noted["parcel"] in (ANY, token)
        return noted["place"] if begun_there else None

    def begin(self, token: str, here: Mapping[str, Any]) -> None:
        """From now on the parcel may be here. Durable when it returns; while all goes well, a process writes it once."""
        noted = self._read()
        same = noted.get("place") == dict(here)
        self._doubtful = token == self._begun or (same and not self._writes and noted["parcel"] in (ANY, token))
        self._begun, self._writes = token, True
        self._write({"place": dict(here), "parcel": ANY, "known": noted["known"] if same else {}})

    def refused(self) -> None:
        """This attempt left nothing behind."""
        if not self._doubtful:
            self._begun = ""
            self._write({**self._read(), "parcel": ""})

    def known(self, name: str, here: Mapping[str, Any]) -> Any:
        """What was learnt about a place where the sink wrote last, or None."""
        noted = self._read()
        return noted["known"].get(name) if noted.get("place") == dict(here) else None

    def learn(self, **facts: Any) -> None:
        """Keep something about the place where the sink writes now, unless it is None."""
        noted, new = self._read(), {name: value for name, value in facts.items() if value is not None}
        if self._writes:
            self._write({**noted, "known": {**noted["known"], **new}})

    def end(self) -> None:
        """No more is written: only the parcel in hand, if any, is in doubt."""
        if self._writes:
            self._write({**self._read(), "parcel": self._begun})
            self._writes = False

    def unseen(self, token: str, error: Exception) -> Exception:
        """What to raise when it cannot be seen whether a parcel was begun elsewhere."""
        what = f"the options of this sink changed, and whether {token} is there in part under the old ones cannot be seen: {error}"
        kind = Retry if isinstance(error, Retry) else Refused
        return kind(f"{what}; if you know that it is not, remove {self.file}")

    def _read(self) -> dict[str, Any]:
        if self._noted is None or not self._writes:  # a person may have removed it meanwhile
            try:
                self._noted = json.loads(self.file.read_bytes()) if self.file and self.file.exists() else {}
            except ValueError as error:
                raise Refused(f"{self.file} is damaged ({error}); if the options of this sink did not change, remove it") from None
        return self._noted

    def _write(self, noted: dict[str, Any]) -> None:
        if self.file and noted != self._noted:
            make_folder(self.file.parent)
            part = self.file.with_suffix(".part")
            with part.open("w") as out:
                json.dump(noted, out)
                out.flush()
                os.fsync(out.fileno())
            part.rename(self.file)
            self._synced = False
        if self.file and not self._synced:
            sync(self.file.parent)  # once if it says so already: a process that was killed may have ended before this line
            self._synced = True
        self._noted = noted


@define
class Placed(ABC):
    """A sink that ends each parcel where it was begun. It says which of its options are its place, and how to look and write there."""

    kind: ClassVar[str]
    """Its name in YAML."""
    placed_by: ClassVar[tuple[str, ...]]
    """Options that say where rows go; a path is remembered whole."""
    _trail: Trail = field(init=False, factory=Trail, repr=False, eq=False)

    @property
    def place(self) -> dict[str, Any]:
        """Where rows go now, as JSON has it."""
        options = {name: getattr(self, name) for name in self.placed_by}
        return {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in options.items()}

    def keep_in(self, folder: Path) -> None:
        """Remember there where rows went last."""
        self._trail = Trail(folder / f"{self.kind}.json")

    def deliver(self, parcel: Parcel) -> Receipt:
        """Write what is not there yet, in the place where an earlier attempt began it, also after options changed."""
        return self._trail.ended_elsewhere(parcel, self.place, self._at) or self.write(parcel)

    def _at(self, place: dict[str, Any]) -> Placed:
        return evolve(self, **{name: type(getattr(self, name))(value) for name, value in place.items()})

    @abstractmethod
    def holds(self, parcel: Parcel) -> bool:
        """Whether anything of the parcel is there. Raises Retry or Refused when that cannot be seen."""

    @abstractmethod
    def write(self, parcel: Parcel) -> Receipt:
        """Write what is not there yet, as `deliver` of any sink."""

    def close(self) -> None:
        """The orderly end: only the parcel in hand, if any, is in doubt."""
        self._trail.end()
