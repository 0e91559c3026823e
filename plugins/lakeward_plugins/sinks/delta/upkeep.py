"""What keeps commits cheap: delta-rs looks at every file of a table at each commit, so there must be few."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import unquote

from attrs import define, field
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from lakeward.wording import first_line
from lakeward_plugins.sinks.delta import tail
from lakeward_plugins.sinks.delta.compaction import compact
from lakeward_plugins.sinks.delta.place import LOG, NO_HOOKS, Place

log = logging.getLogger("lakeward.delta")
SMALL = 8 << 20  # bytes; every time, files up to here are made into one
LARGE = 32 << 20  # bytes; every tenth time, files up to here
CHECKPOINT = 10  # versions, as Spark does
DAY = timedelta(days=1)


@define
class Upkeep:
    """Small files made into large ones, and files removed that no version needs.

    By the number of the version, so of many writers one does it. Whatever goes wrong is told and left for the next time: the rows are in.
    """

    every: int
    keep_removed: timedelta
    compression: str
    """Of files that are made here."""
    _removed: bool = field(init=False, default=False)
    """Whether this process has removed files."""
    _since: float = field(init=False, factory=time.monotonic)
    """When this process began, or removed files last."""

    def after(self, table: DeltaTable, before: int, version: int, place: Place) -> DeltaTable | None:
        """Called after each commit; gives the table, maybe brought up to date, or nothing when it should be loaded anew."""
        before = max(0, before)
        if version // CHECKPOINT == before // CHECKPOINT:
            return table
        try:
            table.update_incremental()
            if self.every and version // self.every != before // self.every:
                self._compact(table, version // self.every, place)
            table.create_checkpoint()
            place.sync_commits(range(table.version(), table.version() + 1))  # or a power cut leaves one that nobody can read
        except CommitFailedError as error:
            log.info("%s: files are made larger another time, as other writers were first: %s", place.uri, first_line(error))
        except Exception as error:  # noqa: BLE001  # whatever the libraries raise: the rows are in
            log.warning("%s: the rows are in, but the table could not be tidied: %s", place.uri, first_line(error))
        else:
            return table
        return None

    def _compact(self, table: DeltaTable, number: int, place: Place) -> None:
        known = table.version()
        compact(table, place, SMALL if number % 10 else LARGE, self.compression)
        table.update_incremental()  # files that the table is not known to have would be removed
        if self._is_due(number):
            self._remove(table, place)
            self._removed, self._since = True, time.monotonic()
        table.update_incremental()
        place.sync_commits(range(known + 1, table.version() + 1))

    def _is_due(self, number: int) -> bool:
        """Once a day, as every name is looked at. Runs that end sooner, such as those of a timer, would never do it but for the number."""
        first_here = not self._removed and not number % 10
        return first_here or time.monotonic() - self._since > min(DAY, self.keep_removed).total_seconds()

    def _remove(self, table: DeltaTable, place: Place) -> None:
        """The part of the log that is older than `history` and before a checkpoint, and files that no version needs."""
        table.cleanup_metadata()
        if place.local:
            tail.tidy(place.local / LOG)
        self._vacuum(table, place)

    def _vacuum(self, table: DeltaTable, place: Place) -> None:
        """Remove old files that no version names; of those that cannot be the table's, such as another table below this one, none is."""
        hours, columns = int(self.keep_removed / timedelta(hours=1)), table.metadata().partition_columns
        old = table.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)
        if others := [path for path in old if not _may_be_of(columns, path)]:
            told = f"{place.uri} is a folder for one table, but {others[0]} is in it"
            log.warning("%s; files of attempts that failed stay there until it is moved away", told)
        table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=not others, post_commithook_properties=NO_HOOKS)


def _may_be_of(columns: Sequence[str], path: str) -> bool:
    *folders, name = path.split("/")
    begins = all(unquote(folder).startswith(f"{column}=") for folder, column in zip(folders, columns, strict=False))
    return len(folders) == len(columns) and begins and name.endswith((".parquet", ".part", ".bin"))
