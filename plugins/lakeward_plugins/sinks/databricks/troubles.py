"""Errors of the client library and of the warehouse, as what the kernel knows."""

from __future__ import annotations

import re
import ssl

from databricks.sql import exc
from thrift.Thrift import TException  # type: ignore[import-untyped]  # thrift ships no types
from urllib3.exceptions import HTTPError

from lakeward import Refused, Rejected, Retry
from lakeward.wording import one_line

ODD = (exc.Error, HTTPError, TException, OSError, EOFError, ValueError, ImportError)
"""What the library may raise: its own, and those of what it stands on when an answer is cut short."""
CLASS = re.compile(r"\[([A-Z][A-Z0-9_]*)(?:\.[A-Z0-9_.]+)?\]|\b([A-Z]+(?:_[A-Z]+)+): ")
STATE = re.compile(r"SQLSTATE:? ([0-9A-Z]{5})")
QUERY, STAGING = re.compile(r"\?[^\s'\")]+"), re.compile(r"Staging operation over HTTP was unsuccessful: (\d{3})")
LOST = re.compile(r"invalid ?session ?handle|(session|command) .*(?:not exist|closed|expired)|closed (?:connection|cursor)", re.IGNORECASE)
AGAIN = {408, 425, 429}
GONE = "PATH_NOT_FOUND"
NO_TABLE = "TABLE_OR_VIEW_NOT_FOUND"
NAME_IT = "correct `table`, or make the schema"
TOKEN = "check `token`: it is wrong, expired, or of somebody else's workspace"  # noqa: S105  # words, not a token
RIGHTS = (
    "give the owner of the token SELECT and MODIFY on the table, READ VOLUME and WRITE VOLUME on the volume, USE SCHEMA and USE CATALOG, "
    "and CREATE TABLE on the schema when `create` is set"
)
STORE = (
    "give the owner of the token READ VOLUME and WRITE VOLUME on the volume, and see that the storage credential of the volume may write, "
    "and that the store lets this machine in"
)
LACKS = re.compile(r"does not have (?:permission |privilege )?([A-Z]+(?: [A-Z]+)*) on (\w+) ['`]([^'`]+)['`]")
"""A privilege, of what kind the thing is, and its name."""
STALE = re.compile(r"expired|expiry|time frame", re.IGNORECASE)
"""What stores say of an address that was good for some minutes."""
REMEDY = {
    NO_TABLE: "correct its name, or make it: `lakeward ddl` prints the statement, and with `create: true` the first rows do",
    "INSUFFICIENT_PERMISSIONS": RIGHTS,
    "PERMISSION_DENIED": RIGHTS,
    "SCHEMA_NOT_FOUND": NAME_IT,
    "NO_SUCH_CATALOG_EXCEPTION": NAME_IT,
    **dict.fromkeys(("VOLUME_NOT_FOUND", "UC_VOLUME_NOT_FOUND"), "make the volume, or correct `volume`"),
    "UNRESOLVED_COLUMN": "the table has changed while it was written to; if that stays so, look at its columns",
}
PASSING = {GONE, "TEMPORARILY_UNAVAILABLE", "RESOURCE_EXHAUSTED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_DOES_NOT_EXIST"}
PASSING_STATES = ("08", "2D", "40", "53", "57", "58", "XX")
"""Classes of SQLSTATE: connection, another writer that was first, rollback, resources, intervention, the system itself."""
ABOUT_ROWS, NOT_ABOUT_ROWS = ("22", "23"), "22023"
"""Data that cannot be cast, and constraints; a setting that is wrong is counted as data as well."""


def error_class(error: BaseException) -> str:
    """What the warehouse calls it, such as TABLE_OR_VIEW_NOT_FOUND; empty when it has no name."""
    match = CLASS.search(said(error))
    return match[1] or match[2] if match else ""


def is_lost(error: BaseException) -> bool:
    """Whether the session is gone, and with it all use of the connection."""
    return bool(LOST.search(said(error))) or (getattr(error, "context", None) or {}).get("http-code") == 404


def is_gone(error: BaseException) -> bool:
    """Whether a file is not there any more."""
    return error_class(error) == GONE or bool((match := STAGING.search(said(error))) and match[1] == "404")


def sorted_out(error: BaseException, where: str) -> Retry | Refused | Rejected:
    """What the kernel is to do about it; nothing that was sent, nor an address with a signature, is in its words."""
    if told := _distrust(error):
        return Refused(
            f"{where}: the certificate of the warehouse is not trusted: {told}; check `host` and the certificates of this machine"
        )
    status = _status(error)
    if status:
        return _by_status(error, status, where)
    if isinstance(error, ImportError):  # newer kinds of warehouses speak another protocol, which the library has as an extra
        return Refused(f"{where}: {short(error)}")
    if isinstance(error, (exc.ServerOperationError, exc.DatabaseError)) and not isinstance(error, exc.OperationalError):
        return _by_state(error, where)
    if (getattr(error, "context", None) or {}).get("http-code") == 200:
        return Retry(f"{where}: the answer of the warehouse is cut short, or is none")
    cause = getattr(error, "reason", None) or error
    return Retry(f"{where}: {type(cause).__name__}: {short(cause)}")


def _status(error: BaseException) -> int:
    """Of HTTP, when an answer other than 200 is what went wrong."""
    if match := STAGING.search(said(error)):
        return int(match[1])
    status = (getattr(error, "context", None) or {}).get("http-code") or 0
    return 0 if status == 200 else int(status)


def _by_status(error: BaseException, status: int, where: str) -> Retry | Refused | Rejected:
    context = getattr(error, "context", None) or {}
    staging = STAGING.search(said(error))
    words = said(error)[staging.end() :] if staging else context.get("error-message") or ""
    what = f"{where}: the {'store of the volume' if staging else 'warehouse'} answered {status} {short(words).strip(' -:.')}".rstrip()
    if status == 404 and context.get("method") not in (None, "OpenSession"):
        return Retry(what)  # the session is gone, and another will be opened
    if status in AGAIN or status >= 500:
        wanted = context.get("bounded-retry-delay")  # what Retry-After says; 1 when there is none
        wait = float(wanted) if wanted and wanted > 1 else None
        hint = "; it may be starting" if status == 503 else ""
        return Retry(f"{what}{hint}", wait, throttled=status in (429, 503))
    if status == 413:
        return Rejected(what)
    if staging and status in (401, 403) and not STALE.search(words):
        return Refused(f"{what}; {STORE}")
    if staging:
        return Retry(what)  # the address was good for one file and some minutes; another is asked for
    remedies = {401: TOKEN, 403: f"{TOKEN}, or it may not use the warehouse", 404: "check `host` and `http_path`"}
    return Refused(f"{what}; {remedies.get(status, 'start the warehouse, or check `host` and `http_path`')}")


def _by_state(error: BaseException, where: str) -> Retry | Refused | Rejected:
    name, match = error_class(error), STATE.search(said(error))
    state = match[1] if match else ""
    what = f"{where}: {short(error)}"
    by_others = "CONCURRENT" in name or "ALREADY_EXISTS" in name  # another writer was first; look again
    passing = state.startswith(PASSING_STATES) or by_others or name in PASSING or "TIMEOUT" in name
    if passing or is_lost(error):
        return Retry(what)
    if state.startswith(ABOUT_ROWS) and state != NOT_ABOUT_ROWS:
        return Rejected(what)
    if right := LACKS.search(said(error)):
        statement = f"GRANT {right[1]} ON {right[2].upper()} {right[3]} TO the owner of the token"
        return Refused(f"{what}; let the owner of the {right[2].lower()} run {statement}")
    lacks = name.endswith(("_NOT_FOUND", "_DOES_NOT_EXIST"))
    unknown = (
        "make what is missing, or correct `table` or `volume`" if lacks else "look for the statement in the query history of the warehouse"
    )
    return Refused(f"{what}; {REMEDY.get(name, unknown)}")


def _distrust(error: BaseException) -> str:
    """Why a certificate is not trusted; empty when that is not the cause."""
    cause: object = error
    for _ in range(10):  # libraries wrap each other's errors, in this way or that
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        reasons = [getattr(cause, "reason", None), getattr(cause, "__cause__", None), getattr(cause, "__context__", None)]
        cause = next((one for one in [*getattr(cause, "args", ()), *reasons] if isinstance(one, BaseException)), None)
    return ""


def said(error: BaseException) -> str:
    """The text of an error, also where the library has none and would stumble over that."""
    return str(error) if not isinstance(error, exc.Error) or error.message else "no word about it"


def short(text: object) -> str:
    """On one line, not too long, and without the part of an address that is as good as a key."""
    return one_line(QUERY.sub("?***", said(text) if isinstance(text, BaseException) else str(text)), 300)
