"""What may be done: permissions that a test takes away, limits, and the errors that tell of them."""

from __future__ import annotations

from attrs import define, field

MOST_MARKERS = 255
MOST_BYTES = 1_000_000
"""Of the values of all parameters of a statement; both limits are from the connector's documentation."""
SETTINGS = {"ansi_mode", "timezone", "statement_timeout", "use_cached_result", "query_tags"}
"""Configuration parameters of a SQL warehouse that a session may set, and some that the connector sets."""


class SqlError(Exception):
    """What a warehouse says: an error class, a text and an SQLSTATE."""

    def __init__(self, name: str, text: str, state: str) -> None:
        super().__init__(f"[{name}] {text} SQLSTATE: {state}")
        self.state = state


@define
class Grants:
    """Everybody may do everything, except what was revoked."""

    revoked: set[tuple[str, str]] = field(factory=set)
    """Privilege and name, such as ("MODIFY", "lake.iot.readings") or ("READ VOLUME", "lake.iot.in")."""

    def require(self, privilege: str, kind: str, name: str) -> None:
        """Also to use what it is in."""
        catalog, schema = name.split(".")[:2]
        wanted = [("USE CATALOG", "Catalog", catalog), ("USE SCHEMA", "Schema", f"{catalog}.{schema}")]
        for each, of, which in [*wanted, (privilege, kind, name)]:
            if (each, which) in self.revoked:
                text = f"Insufficient privileges: User does not have {each} on {of} '{which}'."
                raise SqlError("INSUFFICIENT_PERMISSIONS", text, "42501")


def require_few(count: int, size: int) -> None:
    """Of parameters."""
    if count > MOST_MARKERS:
        raise SqlError("TOO_MANY_PARAMETERS", f"{count} parameter markers, at most {MOST_MARKERS} are allowed.", "54000")
    if size > MOST_BYTES:
        raise SqlError("PARAMETERS_TOO_LARGE", f"{size} bytes of parameters, at most {MOST_BYTES} are allowed.", "54000")
