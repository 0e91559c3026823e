"""Logging to standard error: text for people, JSON lines for machines; secrets are masked in both."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from lakeward.secrets import redact

CLEAR = "\r\x1b[K"  # on a terminal, whatever progress is on this line


def log_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--log-format` and `--log-level`."""
    function = click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)(
        function
    )
    return click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How logs look.")(
        function
    )


def start_logging(log_format: str, log_level: str) -> None:
    """Set up the root logger; of libraries of others only warnings, because some print credentials below that."""
    handler = logging.StreamHandler()
    fresh_line = CLEAR if sys.stderr.isatty() else ""
    text = logging.Formatter(f"{fresh_line}%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(RedactingFormatter(_JsonLines() if log_format == "json" else text))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("lakeward").setLevel(log_level.upper())


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if hasattr(record, "event"):
            line |= {"event": record.event, **getattr(record, "fields", {})}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class RedactingFormatter(logging.Formatter):
    """Wraps another formatter; cleans messages, arguments and exception texts, as they come out formatted."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """As the inner formatter says it, masked."""
        return redact(self._inner.format(record))
