"""What a command found out, on standard output; secrets are masked."""

from __future__ import annotations

import json
from collections.abc import Callable

import click

from lakeward.secrets import redact


def answer(found: object, as_json: bool, in_words: Callable[[], str]) -> None:
    """Print it as JSON, or in words."""
    click.echo(redact(json.dumps(found, indent=2) if as_json else in_words()))
