"""What must stay true of the kernel as a whole."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOR_OTHERS = (  # what only transforms and sinks use
    "timestamps.py", "grouping.py", "packing.py", "units.py", "partitions.py", "upserts.py", "notes.py", "delta_types.py", "trail.py",
    "wording.py", "folders.py",
)  # fmt: skip
KERNEL = [path for path in (ROOT / "core" / "lakeward").glob("*.py") if path.name not in FOR_OTHERS]


def code_lines(path: Path) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    text = path.read_text()
    described = set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            described |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(1 for number, line in lines if line.strip() and not line.strip().startswith("#") and number not in described)


BESIDE = [path for name in ("yamlfile", "deadletters") for path in (ROOT / "core" / "lakeward" / name).glob("*.py")]


def test_the_kernel_stays_near_two_thousand_lines() -> None:
    kernel, beside = sum(map(code_lines, KERNEL)), sum(map(code_lines, BESIDE))
    assert 1000 < kernel <= 2150
    assert 500 < beside <= 610


def test_no_file_holds_two_subjects_and_no_function_two_jobs() -> None:
    sources = [*(ROOT / "core").rglob("*.py"), *(ROOT / "plugins").rglob("*.py"), *(ROOT / "plugins_contrib").glob("*/src/**/*.py")]
    assert len(sources) > 40
    for path in sources:
        text = path.read_text()
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 50, f"{path}:{node.lineno} {node.name}"
