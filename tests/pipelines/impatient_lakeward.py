"""The real command line, which waits at most so many seconds between attempts: `impatient_lakeward.py SECONDS ARGUMENTS...`."""

from __future__ import annotations

import sys

from lakeward import deliver
from lakeward.cli import main

if __name__ == "__main__":
    pacing = sys.modules.get("lakeward.pacing", deliver)
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "LONGEST_WISH"):
        setattr(pacing, name, float(sys.argv[1]))
    setattr(pacing, "RETRIES_A_MINUTE", 1e9)  # noqa: B010
    sys.argv[1:] = sys.argv[2:]
    main()
