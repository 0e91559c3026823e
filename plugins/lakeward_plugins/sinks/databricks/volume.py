"""The folder of a volume in which files wait until they are loaded."""

from __future__ import annotations

import io
import logging
import re
import secrets
from collections.abc import Callable
from typing import BinaryIO

from attrs import define, field

from lakeward import Retry
from lakeward.components import Token
from lakeward_plugins.sinks.databricks.names import quoted
from lakeward_plugins.sinks.databricks.troubles import ODD, is_gone, short
from lakeward_plugins.sinks.databricks.warehouse import Warehouse

log = logging.getLogger("lakeward.databricks")
TIDIED = 10  # files of earlier parcels that are taken away after each delivery


@define(eq=False)
class Folder:
    """One sink's files; others may have theirs beside them."""

    path: str
    warehouse: Warehouse
    _put: str = field(init=False, default="")
    """The file that is there for sure, so that an attempt that failed later need not send it again."""
    _left: list[str] | None = field(init=False, default=None)
    """Files that nobody needs any more; None when it must be looked which these are."""

    def stage(self, file: str, token: Token, content: Callable[[], BinaryIO]) -> None:
        """Put the file of a parcel there."""
        if self._left is None:
            self._left = self._left_behind(token)
        if file != self._put:
            with content() as stream:
                self.warehouse.upload(f"{self.path}/{file}", stream)
            self._put = file

    def forget(self) -> None:
        """The file may not be what it was."""
        self._put = ""

    def require(self, file: str, rows: int) -> None:
        """The file must still have so many; else it is sent again by the next attempt."""
        path = f"{self.path}/{file}"
        found = int(self.warehouse.run(f"SELECT count(*) AS n FROM parquet.{quoted(path)}")["n"])
        if found != rows:
            self.forget()
            raise Retry(f"{path} has {found} rows, and not the {rows} that were put there; leave the files of lakeward to it")

    def listed(self) -> list[str]:
        """Names of the files; none when the folder is not there, as the first file makes it."""
        try:
            return self.warehouse.listed(self.path)
        except ODD as error:
            if is_gone(error):
                return []
            raise

    def tidy(self, file: str) -> None:
        """Take away what is loaded. The rows are there: a file that stays for now must not make this delivery fail."""
        self._put, names = "", [file, *(self._left or ())]
        for name in names[: TIDIED + 1]:
            try:
                self.warehouse.remove(f"{self.path}/{name}")
            except ODD as error:
                if is_gone(error):
                    continue
                log.info("%s/%s stays in the volume for now: %s", self.path, name, short(error))
                self._left = None  # the next delivery looks what is there
                return
        self._left = None if self._left is None else names[TIDIED + 1 :]

    def try_out(self) -> None:
        """Put a file there and take it away."""
        path = f"{self.path}/lakeward-doctor-{secrets.token_hex(4)}"
        self.warehouse.upload(path, io.BytesIO(b"trial"))
        self.warehouse.remove(path)

    def _left_behind(self, token: Token) -> list[str]:
        """Files that were not taken away, such as by a killed run. Parcels come in order, so those before this one have been loaded."""
        ours = re.compile(re.escape(f"{token.pipeline}-{token.sink}-{token.life}-{token.epoch:04d}-") + r"(\d{10})[-.].*\.parquet")
        found = ((name, ours.fullmatch(name)) for name in self.listed())
        return [name for name, match in found if match and int(match[1]) < token.sequence]
