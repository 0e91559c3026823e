"""One thing to wait for: work that is done, or the wish to stop."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Bell:
    """Wakes the main thread. Ringing is safe from any thread and from a signal handler (locks are not)."""

    def __init__(self) -> None:
        self.stopping = 0
        """Signal that asked to stop; 0 while nobody did."""
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._ear, False)
        os.set_blocking(self._mouth, False)

    def ring(self) -> None:
        """Wake whoever waits; a full pipe means that it is ringing already."""
        with suppress(BlockingIOError):
            os.write(self._mouth, b"!")

    def wait(self, seconds: float) -> None:
        """Return after so long, or when the bell rings. Rings that came before count."""
        if self.stopping:
            return
        if select.select([self._ear], [], [], max(0.0, seconds))[0]:
            os.read(self._ear, 4096)

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._ear)
        os.close(self._mouth)

    @contextmanager
    def listen_for_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask to stop; the second one stops at once."""

        def stop(number: int, _: FrameType | None) -> None:
            if self.stopping:
                os._exit(128 + number)  # crash-only: what is recorded is safe, the rest is read again
            self.stopping = number
            self.ring()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
