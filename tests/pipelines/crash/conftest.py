"""One nursery for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from crash.program import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with closing(Nursery()) as started:
        yield started
