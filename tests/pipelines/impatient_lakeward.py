"""The real command line, which waits at most so many seconds between attempts: `impatient_lakeward.py SECONDS ARGUMENTS...`."""

from __future__ import annotations

import sys

from lakeward import pacing


def hurry(seconds: str) -> None:
    """Let this process wait no longer, and try as often as it wants to."""
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "LONGEST_WISH"):
        setattr(pacing, name, float(seconds))
    pacing.RETRIES_A_MINUTE = 1e9


if __name__ == "__main__":
    from lakeward.cli import main

    hurry(sys.argv.pop(1))
    main()
