"""The wheel and the sdist hold everything, and nothing else."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules(folder: str) -> set[str]:
    root = ROOT / folder
    return {path.relative_to(root).as_posix() for path in root.rglob("*.py")}


def test_the_wheel_has_every_module_of_both_packages(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry_points = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert names == modules("core") | modules("plugins") | {"lakeward/py.typed", "lakeward_plugins/py.typed"}
    assert "[lakeward]" in entry_points
    assert "lakeward = lakeward.cli:main" in entry_points


def test_the_sdist_has_what_is_needed_to_test_it(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("README.md", "LICENSE", "CHANGELOG.md", "tox.ini", "Makefile", "examples/environmental.yaml", "tests/core/test_run.py"):
        assert needed in names
    assert {f"core/{name}" for name in modules("core")} <= names
    assert {f"plugins/{name}" for name in modules("plugins")} <= names
