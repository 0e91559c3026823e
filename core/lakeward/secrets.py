"""Secrets: values that can be used but never shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import NoReturn
from urllib.parse import quote, quote_plus

from attrs import frozen

_known: set[str] = set()  # every form of every value revealed so far, so that logs and messages can be cleaned
SHORTEST = 4  # masking "a" everywhere would only garble the logs


@frozen
class SecretReference:
    """`${scheme:ref}`, not resolved yet."""

    scheme: str
    ref: str

    def __str__(self) -> str:
        return f"${{{self.scheme}:{self.ref}}}"


class Secret:
    """A value from `${scheme:ref}`. Not a str on purpose: those leak through json, pickle and `+`."""

    __slots__ = ("__value", "reference")

    def __init__(self, value: str, reference: str) -> None:
        self.__value = value
        self.reference = reference
        if len(value) >= SHORTEST:
            _known.update(_forms(value))

    def reveal(self) -> str:
        """The value itself: hand it to the client library and keep it nowhere."""
        return self.__value

    def __repr__(self) -> str:
        return f"Secret({self.reference})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.__value == self.__value

    def __hash__(self) -> int:
        return hash(self.__value)


def _forms(value: str) -> Iterator[str]:
    """What a value looks like in a log: as it is, in a repr, in JSON, in a URL, in base64."""
    # a repr escapes `'` only when there is a `"` as well; a JSON log may hold any of these
    for text in (value, repr(value)[1:-1], repr('"' + value)[2:-1]):
        yield from (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    raw = value.encode(errors="surrogateescape")
    yield from (quote(raw), quote(raw, safe=""), quote_plus(raw), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode())


def redact(text: str) -> str:
    """The text without any secret value that this process knows."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, "***")
    return text
