"""One thing to wait for: work that is done, or the wish to stop."""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Bell:
    """Wakes the main thread. Ringing is safe from any thread and from a signal handler (locks are not)."""

    def __init__(self) -> None:
        self.stopping = 0
        """Signal that asked to stop; 0 while nobody did."""
        self.asked = math.inf
        """When it did, on the monotonic clock."""
        self.grace = 0.0
        """Seconds from then until the process ends by itself; none before there is something to finish."""
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
        """SIGTERM and SIGINT ask to stop. The process ends at the second one, or when `grace` is over, whatever is in hand.

        A thread listens, because Python runs no handler while the main thread is inside a long call into a library.
        """
        ear, mouth = os.pipe()
        os.set_blocking(mouth, False)
        watch = threading.Thread(target=self._watch, args=(ear,), name="signals", daemon=True)
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
        before_mouth = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
        watch.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before_mouth)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(mouth)
            watch.join()
            os.close(ear)

    def _watch(self, ear: int) -> None:
        while True:
            left = self.asked + self.grace - time.monotonic() if self.stopping else None
            if not select.select([ear], [], [], left if left is None else max(0.0, left))[0]:
                os._exit(128 + self.stopping)  # crash-only: what is recorded is safe, the rest is read again
            heard = os.read(ear, 1)
            if not heard:
                return
            if heard[0] in (signal.SIGTERM, signal.SIGINT):
                if self.stopping:
                    os._exit(128 + heard[0])
                self.asked, self.stopping = time.monotonic(), heard[0]
                self.ring()
