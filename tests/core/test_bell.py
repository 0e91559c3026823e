from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from lakeward.bell import Bell

LONG = 20.0  # seconds; a wait that is not ended fails by its duration


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    bell.grace = LONG
    yield bell
    bell.close()


def waited(bell: Bell, seconds: float) -> float:
    start = time.monotonic()
    bell.wait(seconds)
    return time.monotonic() - start


def test_a_ring_from_another_thread_ends_the_wait(bell: Bell) -> None:
    timer = threading.Timer(0.1, bell.ring)
    timer.start()
    assert 0.05 < waited(bell, LONG) < LONG / 2
    timer.join()


def test_a_ring_from_a_signal_handler_ends_the_wait(bell: Bell) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: bell.ring())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert 0.05 < waited(bell, LONG) < LONG / 2
    finally:
        signal.signal(signal.SIGALRM, before)


def test_rings_before_the_wait_count_once_all_together(bell: Bell) -> None:
    for _ in range(3):
        bell.ring()
    assert waited(bell, LONG) < LONG / 2
    assert waited(bell, 0.05) >= 0.05


def test_no_number_of_rings_blocks_who_rings(bell: Bell) -> None:
    many = threading.Thread(target=lambda: [bell.ring() for _ in range(100_000)], daemon=True)  # more than a pipe holds
    many.start()
    many.join(LONG)
    assert not many.is_alive()
    assert waited(bell, LONG) < LONG / 2


def test_without_a_ring_the_wait_lasts(bell: Bell) -> None:
    assert waited(bell, 0.05) >= 0.05
    assert waited(bell, 0.0) < LONG / 2
    assert waited(bell, -1.0) < LONG / 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_and_every_later_wait_returns_at_once(bell: Bell, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with bell.listen_for_signals():
        assert bell.stopping == 0
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        assert waited(bell, LONG) < LONG / 2
        assert bell.stopping == number
        for _ in range(3):
            assert waited(bell, LONG) < LONG / 2
    assert signal.getsignal(number) is before


def test_other_signals_change_nothing_and_nobody_listens_in_the_end(bell: Bell) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        with bell.listen_for_signals():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert waited(bell, 0.1) >= 0.1
        assert (heard, bell.stopping) == ([signal.SIGUSR1], 0)
        assert "signals" not in {thread.name for thread in threading.enumerate()}
    finally:
        signal.signal(signal.SIGUSR1, before)


LISTENING = """
import os, signal, time
from lakeward.bell import Bell
bell = Bell()
with bell.listen_for_signals():
    bell.grace = {grace}
    os.kill(os.getpid(), signal.SIGTERM)
    {then}
    time.sleep(60)
"""
ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
STUCK = f"import sqlite3; sqlite3.connect(':memory:').execute('{ENDLESS}')"


@pytest.mark.parametrize(
    ("grace", "then", "said"),
    [
        (60, "bell.wait(60); print('asked', flush=True); os.kill(os.getpid(), signal.SIGTERM)", "asked\n"),
        (60, f"os.kill(os.getpid(), signal.SIGTERM); {STUCK}", ""),
        (0.5, "bell.wait(60); print('asked', flush=True)", "asked\n"),
        (0.5, STUCK, ""),
        (0.0, STUCK, ""),
    ],
    ids=["second", "second, inside C", "grace", "grace, inside C", "nothing in hand"],
)
def test_the_second_signal_or_the_end_of_the_grace_ends_the_process(grace: float, then: str, said: str) -> None:
    script = LISTENING.format(grace=grace, then=then)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.stdout, ended.stderr, ended.returncode) == (said, "", 143)
