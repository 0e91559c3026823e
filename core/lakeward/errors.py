"""The few errors, sorted by what the kernel does about them.

A new class is for a new reaction, never for a new message.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen


class LakewardError(Exception):
    """Any mistake that we expect; the command line prints it in one line, without a traceback."""


# -- the person who wrote the YAML or the command line must act: exit 2 ------------------------------------------------


@frozen
class Place:
    """Where a value was written: a file (or `--set`, or an environment variable), with line and column when it has them."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@frozen
class Problem:
    """One mistake: where, at which path of the configuration, what is wrong and what to do."""

    place: Place
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.path}: {self.message}" if self.path else f"{self.place}: {self.message}"


class ConfigError(LakewardError):
    """The configuration is wrong. Carries all its mistakes at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class OptionError(LakewardError, ValueError):
    """A component does not like one of its options.

    Plugins raise it while they are built, or from `Source.schema`, `Transform.apply` and `Sink.probe`; the kernel adds
    file, line and column. `option` is the path below the component, such as `radius_meters` or `rules[2].fail`.
    """

    def __init__(self, option: str, message: str) -> None:
        self.option = option
        self.message = message
        super().__init__(f"{option}: {message}" if option else message)


# -- the outside world: sources and sinks raise these ------------------------------------------------------------------


class Retry(LakewardError):
    """It may work later: network, lock, throttling. The kernel tries again, after `after` seconds or by its own backoff.

    A source that names a time is not read before `batch.wait` is over either, so one that reads many inputs can go on without a broken one.
    `throttled` says that the other side asked for fewer requests (429, 503, SlowDown), so that pauses never come near zero.
    """

    def __init__(self, reason: str, after: float | None = None, *, throttled: bool = False) -> None:
        self.after = after
        self.throttled = throttled
        super().__init__(reason)


class NoRoom(Retry):
    """The disk of the state is full, or nearly. READ pauses and goes on by itself as soon as there is room."""

    told = "the disk of the state is full, or nearly; make room, and reading goes on by itself"

    def __init__(self, reason: str) -> None:
        super().__init__(reason, after=1.0)


class Rejected(LakewardError):
    """The sink will never take these rows, whoever asks. They become dead letters with this reason; the others are delivered.

    Without `rows` the kernel halves the parcel until it has found them.
    """

    def __init__(self, reason: str, rows: Sequence[int] = ()) -> None:
        self.rows = tuple(rows)  # positions in the parcel; empty means that the sink does not know which
        super().__init__(reason)


class Refused(LakewardError):
    """A human must act: credentials, permission, a name already taken. Rows stay where they are; the run fails (exit 1)."""


class StateInUse(LakewardError):
    """Another instance holds the state directory: exit 3."""

    def __init__(self, directory: Path, holder: str) -> None:
        super().__init__(f"{directory}: another instance holds this state{holder}; stop it, or give --state-dir another folder")
