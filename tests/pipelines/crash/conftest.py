"""One nursery and one server of each kind for all tests of a worker; and none of them tells anything about the version of Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from crash.elsewhere import Servers
from crash.program import Nursery


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("one_python")


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with closing(Nursery()) as started:
        yield started


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with closing(Servers()) as started:
        yield started
