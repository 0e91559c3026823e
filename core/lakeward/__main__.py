"""`python -m lakeward`."""

from lakeward.cli import main

main()
