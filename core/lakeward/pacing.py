"""When a sink is asked again: pauses that grow, a budget for retries, and a circuit that opens when nothing works.

Randomness and the clock are values, so that a test can say what they are.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from attrs import define, field

from lakeward.errors import NoRoom, Refused

FIRST_PAUSE, LONGEST_PAUSE, LONGEST_WISH = 0.5, 60.0, 3600.0  # seconds
OPENS_AFTER = 5  # failures in a row
RETRIES_A_MINUTE, RETRIES_PER_ANSWER, BURST = 10.0, 0.1, 10.0  # a storm of fast failures must not hammer a server
Jitter = Callable[[float, float], float]


def pause_after(failures: int, error: BaseException, jitter: Jitter = random.uniform, *, gently: bool = False, least: float = 0.0) -> float:
    """Seconds until the next attempt: what the other side asked for, up to an hour, else exponential backoff with full jitter.

    A sink that asked for fewer requests, or is to be asked `gently`, is left in peace for at least half of the pause. `least` is the
    pace at which a source is asked anyway; a source that names a time, as one of its many inputs is broken, is not asked faster.
    """
    wish = getattr(error, "after", None)
    if wish is not None and wish >= 0:
        return float(min(wish if isinstance(error, NoRoom) else max(wish, least), LONGEST_WISH))
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))
    return jitter(longest / 2 if gently or getattr(error, "throttled", False) else 0.0, longest)


@define
class Pace:
    """Of the requests to one sink."""

    jitter: Jitter = random.uniform
    clock: Callable[[], float] = time.monotonic
    failures: int = field(init=False, default=0)
    """In a row."""
    _credit: float = field(init=False, default=BURST)
    """Retries that may be made at once; a debt is waited for."""
    _at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._at = self.clock()

    @property
    def is_open(self) -> bool:
        """Nothing works: it is only tried out now and then, with the oldest parcel."""
        return self.failures >= OPENS_AFTER

    def answered(self) -> None:
        """The sink took rows or rejected them, so it works."""
        self.failures = 0
        self._credit = min(BURST, self._credit + RETRIES_PER_ANSWER)

    def failed(self, error: BaseException) -> float:
        """Seconds until the next attempt."""
        self.failures += 1
        pause = pause_after(self.failures, error, self.jitter, gently=self.is_open or isinstance(error, Refused))
        now = self.clock()
        self._credit = min(BURST, self._credit + (now - self._at) * RETRIES_A_MINUTE / 60) - 1
        self._at = now
        return max(pause, -self._credit * 60 / RETRIES_A_MINUTE)
