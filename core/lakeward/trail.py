"""Where a sink wrote last: for sinks whose options say where rows go, and that cannot make a parcel visible and known in one step.

When a process dies in the middle of a delivery, and somebody then changes these options, the next process would write all of the parcel
in another place, and rows would be there twice. So a sink notes its place before it writes, and ends a parcel where it was begun.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

from lakeward.durable import make_folder, sync
from lakeward.errors import Refused, Retry

ANY = "?"
"""Instead of a token: no orderly end, so it may be any parcel."""


@define
class Trail:
    """A small JSON file in the state. In direct use, without a state, nothing is remembered.

    For each parcel: `elsewhere`, then `begin`, then the writing, and `refused` when nothing was written for sure. `end` once, at the end.
    """

    file: Path | None = None
    _noted: dict[str, Any] | None = field(init=False, default=None)  # what the file says
    _begun: str = field(init=False, default="")  # the parcel that may be there
    _doubtful: bool = field(init=False, default=False)  # whether that was so before this attempt
    _writes: bool = field(init=False, default=False)

    def elsewhere(self, token: str, here: Mapping[str, Any]) -> dict[str, Any] | None:
        """The place other than `here` where this parcel may have been begun."""
        noted = self._read()
        begun_there = noted.get("place") not in (None, dict(here)) and noted["parcel"] in (ANY, token)
        return noted["place"] if begun_there else None

    def begin(self, token: str, here: Mapping[str, Any]) -> None:
        """From now on the parcel may be here. Durable when it returns; a process writes it once."""
        noted = self._read()
        same = noted.get("place") == dict(here)
        self._doubtful = token == self._begun or (same and not self._writes and noted["parcel"] in (ANY, token))
        self._begun, self._writes = token, True
        self._write({"place": dict(here), "parcel": ANY, "known": noted["known"] if same else {}})

    def refused(self) -> None:
        """This attempt left nothing behind."""
        if not self._doubtful:
            self._begun = ""

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
        if self._noted is None:
            try:
                self._noted = json.loads(self.file.read_bytes()) if self.file and self.file.exists() else {}
            except ValueError as error:
                raise Refused(f"{self.file} is damaged ({error}); if the options of this sink did not change, remove it") from None
        return self._noted

    def _write(self, noted: dict[str, Any]) -> None:
        if noted == self._noted:
            return
        if self.file:
            make_folder(self.file.parent)
            part = self.file.with_suffix(".part")
            with part.open("w") as out:
                json.dump(noted, out)
                out.flush()
                os.fsync(out.fileno())
            part.rename(self.file)
            sync(self.file.parent)
        self._noted = noted
