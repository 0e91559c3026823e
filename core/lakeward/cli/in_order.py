"""A group of commands, listed as they are defined: in the order in which one needs them."""

from __future__ import annotations

import click


class InOrder(click.Group):
    """Click lists by name, so `discard` would come before `list`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were defined."""
        return list(self.commands)
