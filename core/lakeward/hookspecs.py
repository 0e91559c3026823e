"""Every hook: what a plugin may answer or hear about.

A plugin is a module under the entry point group `lakeward` with some of these functions, marked `@lakeward.hookimpl`,
and `LAKEWARD_API = (1, 0)`. A function takes the arguments it wants. The module itself must be cheap to import.
Data never goes through hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pluggy
from attrs import frozen

from lakeward.components import Component, Parcel, Receipt
from lakeward.secrets import Secret

if TYPE_CHECKING:
    import click

API = (1, 0)
"""Version of the hooks and contracts. A plugin asks for the same major and no newer minor."""

hookspec = pluggy.HookspecMarker("lakeward")
hookimpl = pluggy.HookimplMarker("lakeward")


@frozen
class RunInfo:
    """One execution, as observers see it."""

    id: str
    pipeline: str
    config: Path
    state_dir: Path
    started: datetime


@frozen
class BatchInfo:
    """One recorded batch: how many rows went where."""

    sequence: int
    epoch: int
    origin: str
    read: int
    dead: int
    filtered: Mapping[str, int]
    """Rows removed on purpose, by `node: rule`."""
    sinks: Mapping[str, int]
    """Rows spooled for each sink."""


@frozen
class RunResult:
    """How a run ended."""

    status: Literal["done", "failed", "stopped"]
    finished: datetime
    read: int
    dead: int
    filtered: int
    delivered: Mapping[str, int]
    """Rows delivered in this run, by sink."""
    error: str = ""


@hookspec(historic=True)
def lakeward_components() -> Iterable[Component]:  # type: ignore[empty-body]  # a hookspec has no body
    """Announce sources, transforms and sinks."""


@hookspec(historic=True)
def lakeward_commands() -> Iterable[click.Command]:  # type: ignore[empty-body]  # a hookspec has no body
    """Add commands to the command line; import what they need when they run."""


@hookspec(firstresult=True)
def lakeward_resolve_secret(scheme: str, ref: str) -> Secret | None:
    """The secret behind `${scheme:ref}`, or None when the scheme is another plugin's. Raise OptionError when it cannot be had."""


@hookspec
def lakeward_run_started(run: RunInfo) -> None:
    """A run is about to read. Raising refuses the run."""


@hookspec
def lakeward_batch_recorded(run: RunInfo, batch: BatchInfo) -> None:
    """A batch is spooled and recorded; it will be delivered even after a crash. Errors are only logged."""


@hookspec
def lakeward_parcel_delivered(run: RunInfo, parcel: Parcel, receipt: Receipt) -> None:
    """A sink has a parcel and the state knows it. Called from the sink's thread. Errors are only logged."""


@hookspec
def lakeward_run_finished(run: RunInfo, result: RunResult) -> None:
    """The run is over, however it ended; called once for each started run that was not killed. Errors are only logged."""
