"""lakeward moves what sensors write into SQLite to the lake. These are the names for plugin authors."""

from lakeward.components import (
    END_OF_INPUT,
    ROW,
    Batch,
    Component,
    Encoding,
    Parcel,
    Receipt,
    filtered,
    rejected,
)
from lakeward.errors import OptionError, Refused, Rejected, Retry
from lakeward.hookspecs import hookimpl
from lakeward.options import option

__all__ = [
    "END_OF_INPUT", "ROW", "Batch", "Component", "Encoding", "OptionError", "Parcel", "Receipt", "Refused", "Rejected",
    "Retry", "filtered", "hookimpl", "option", "rejected",
]  # fmt: skip
