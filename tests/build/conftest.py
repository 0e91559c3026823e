"""Where the built distributions are: `pytest tests/build --dist FOLDER`."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--dist", type=Path, default=None, help="folder with the sdist and the wheel")


@pytest.fixture
def dist(request: pytest.FixtureRequest) -> Path:
    folder = request.config.getoption("--dist")
    if folder is None:
        pytest.skip("needs --dist FOLDER; the tox environment `build` gives it")
    return Path(folder)
