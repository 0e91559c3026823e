"""Secrets: values that can be used but never shown."""

from __future__ import annotations

import base64
import logging
from typing import NoReturn
from urllib.parse import quote

from attrs import frozen

_known: set[str] = set()  # every form of every value revealed so far, so that logs and messages can be cleaned
SHORTEST = 4  # masking "a" everywhere would only garble the logs


@frozen
class SecretReference:
    """`${scheme:ref}`, not resolved yet."""

    scheme: str
    ref: str


class Secret:
    """A value from `${scheme:ref}`. Not a str on purpose: those leak through json, pickle and `+`."""

    __slots__ = ("__value", "reference")

    def __init__(self, value: str, reference: str) -> None:
        self.__value = value
        self.reference = reference
        if len(value) >= SHORTEST:
            raw = value.encode()
            _known.update({value, quote(value, safe=""), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()})

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
        return hash(self.reference)


def redact(text: str) -> str:
    """The text without any secret value that this process knows."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, "***")
    return text


class RedactingFormatter(logging.Formatter):
    """Wraps another formatter; cleans messages, arguments and exception texts, as they come out formatted."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """As the inner formatter says it, masked."""
        return redact(self._inner.format(record))
