"""Every code block of README and docs/ is run, page by page, from top to bottom, in an empty folder.

A block whose first line is a comment with a file name is written to that file; other Python and shell blocks are run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TITLE = re.compile(r"#\s+([\w./-]+\.(?:py|yaml|toml))$")


@frozen
class Block:
    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        match = TITLE.match(self.text.splitlines()[0])
        return match[1] if match else None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in FENCE.finditer(text):
        yield Block(text.count("\n", 0, match.start()) + 1, match[1], match[2])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_the_page_works(page: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    site = sysconfig.get_path("purelib", vars={"base": str(prefix), "platbase": str(prefix)})
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIP_PREFIX": str(prefix),  # what a page installs stays in its folder; pip 23 cannot build with PIP_TARGET
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (site, str(tmp_path), os.environ.get("PYTHONPATH")))),  # the last: a tree not installed
    }
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.file:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.text)
        elif block.language in ("bash", "python"):
            command = ["bash", "-e", "-c", block.text] if block.language == "bash" else [sys.executable, "-c", block.text]
            if not _is_about_this_repository(block):
                ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
                assert ran.returncode == 0, f"{where}:\n{block.text}\n{ran.stdout}\n{ran.stderr}"
        else:
            assert block.language in ("text", "yaml"), f"{where}: a block that nothing runs"


def _is_about_this_repository(block: Block) -> bool:
    """`make` and the installation of lakeward itself: the build and pipeline tests do those; here only that the targets exist."""
    lines = [line.split("#")[0].split() for line in block.text.splitlines()]
    if all(words[:1] == ["make"] for words in lines):
        targets = (ROOT / "Makefile").read_text()
        assert all(f"\n{words[1]}:" in targets for words in lines)
        return True
    return all(words[:2] == ["pip", "install"] and "lakeward[" in words[2] for words in lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
