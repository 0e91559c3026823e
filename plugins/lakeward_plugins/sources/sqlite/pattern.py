"""A path with stars: which files match it, and what the stars stand for."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from attrs import frozen

from lakeward_plugins.sources.sqlite.opening import SIDES

BESIDE = (*SIDES, "-shm")  # what SQLite makes beside a database


def is_pattern(path: Path) -> bool:
    """Whether the path stands for many. A file that has such a name is itself."""
    return any(star in str(path) for star in "*?") and not path.exists()


@frozen
class Pattern:
    """A path with `*`, `?` and `**`, and what its stars stand for in each file that matches."""

    path: Path

    @property
    def folder(self) -> Path:
        """The part before the stars; names are relative to it."""
        return Path(*self.path.parts[: self._wild])

    @property
    def stars(self) -> int:
        """How many parts of a path it leaves open."""
        return self._regex.groups

    def names(self) -> dict[str, tuple[str, ...]]:
        """The files that match now, in order, and what is in the place of each star."""
        pattern = "/".join(self.path.parts[self._wild :]).replace("[", "[[]")
        names = sorted(glob.glob(pattern, root_dir=self.folder, recursive=True))  # noqa: PTH207
        matches = {name: self._regex.fullmatch(name) for name in names if not name.endswith(BESIDE)}
        return {name: match.groups("") for name, match in matches.items() if match and (self.folder / name).is_file()}

    @property
    def _wild(self) -> int:
        return next(index for index, part in enumerate(self.path.parts) if "*" in part or "?" in part)

    @property
    def _regex(self) -> re.Pattern[str]:
        signs = {"**/": "(?:(.+)/)?", "**": "(.*)", "*": "([^/]*)", "?": "[^/]"}
        parts = re.split(r"(\*\*/|\*\*|\*|\?)", "/".join(self.path.parts[self._wild :]))
        return re.compile("".join(signs.get(part, re.escape(part)) for part in parts), re.DOTALL)
