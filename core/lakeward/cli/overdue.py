"""A time limit for work that a library does and nothing can stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from lakeward.errors import LakewardError

Result = TypeVar("Result")


class Overdue(LakewardError):
    """A step took longer than it may."""


def within(seconds: float, work: Callable[[], Result], name: str = "step") -> Result:
    """What the work gives; Overdue when it goes on for longer. It then goes on in the background: nothing can stop a library that waits."""
    gave: list[Result] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            gave.append(work())
        except BaseException as error:  # noqa: BLE001  # raised again by the thread that waits
            raised.append(error)

    thread = threading.Thread(target=run, name=f"doctor {name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not gave:
        raise Overdue(f"no answer within {seconds:g} s")
    return gave[0]
