"""Where a server of the tests listens, as its log says."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path


def address(process: subprocess.Popen[bytes], log: Path, words: str) -> str:
    """What follows these words. RuntimeError with the log when the server ends, or says nothing for a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if told := re.search(words + r" (http://127\.0\.0\.1:\d+)", log.read_text()):
            return told[1]
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()}")
