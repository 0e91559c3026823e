"""Ten thousand damaged pipeline files through all that `lakeward check` does: each is good, or refused in lines that a person can read."""

from __future__ import annotations

import copy
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from lakeward.cli import lakeward, main
from lakeward.cli.probing import probe
from lakeward.config import load
from lakeward.errors import ConfigError, LakewardError
from lakeward.planning import plan
from lakeward.plugins import Plugins, load_plugins

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
KEY = "0123456789abcdef0123456789abcdef"
VALUES = [
    None, True, 0, -1, 0.5, 1 << 70, float("nan"), float("inf"), "", " ", "no", "5s", "-5s", "1e999s", "9" * 400, "é" * 300, "a\0b",
    "..", "/nowhere/at/all", "/dev/null", "${NOWHERE}", "${NOWHERE:-x}", "${env:GPS_FUZZ_KEY}", "${file:/nowhere}",
    "a.b.c", "checked", "source", "checked.valid", "sqlite", "parquet", "DROP TABLE x", '"; --', "temperature", "text",
    [], {}, [[]], {"use": "filter"}, ["checked", "private"], {"a": {"b": {"c": 1}}},
]  # fmt: skip
LETTERS = "\n\t:{}[]'\"&*#!|>-,? \x00\u2028é%@`$"
LIMIT = 1.0
"""Seconds of CPU that a file may cost."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sensor's database and an archive, and variables that point there."""
    place = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        places = {"SENSOR_DB": place / "sensor.db", "LAKE": place / "lake", "ARCHIVE": place / "lake" / "raw"}
        for name, value in {**places, "GPS_FUZZ_KEY": KEY}.items():
            patch.setenv(name, str(value))
        lakeward.main(
            ["sensor", "run", "--db", str(place / "sensor.db"), "--rows", "200", "--rate", "0", "--seed", "7"], standalone_mode=False
        )
        environmental = str(EXAMPLES[-1].with_name("environmental.yaml"))
        with pytest.raises(SystemExit, match="0"):
            lakeward.main(["run", environmental, "--once", "--state-dir", str(place / "state")], standalone_mode=False)
        yield place


# -- damage --------------------------------------------------------------------------------------------------------------


def damaged(text: str, luck: random.Random) -> str:
    """A file with one to four mistakes, most of them in what it says and some in how it is written."""
    if luck.random() < 0.25:
        for _ in range(luck.randint(1, 4)):
            text = luck.choice((_letter, _line_twice, _line_gone, _indented, _cut))(text, luck)
        return text
    data = yaml.safe_load(text)
    for _ in range(luck.randint(1, 4)):
        luck.choice((_value, _value, _key, _gone, _copied))(data, luck)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _letter(text: str, luck: random.Random) -> str:
    at = luck.randrange(len(text) + 1)
    return text[:at] + luck.choice(LETTERS) + text[at + luck.randint(0, 1) :]


def _line_twice(text: str, luck: random.Random) -> str:
    lines = text.splitlines() or [""]
    lines.insert(luck.randrange(len(lines)), luck.choice(lines))
    return "\n".join(lines)


def _line_gone(text: str, luck: random.Random) -> str:
    lines = text.splitlines() or [""]
    lines.pop(luck.randrange(len(lines)))
    return "\n".join(lines)


def _indented(text: str, luck: random.Random) -> str:
    lines = text.splitlines() or [""]
    at = luck.randrange(len(lines))
    lines[at] = " " * luck.randint(0, 6) + lines[at].lstrip()
    return "\n".join(lines)


def _cut(text: str, luck: random.Random) -> str:
    return text[: luck.randrange(len(text) + 1)]


def _spots(node: Any) -> list[tuple[Any, Any]]:
    """Every place in the data, as its parent and the key or index there."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [spot for key, value in list(inner) for spot in [(node, key), *_spots(value)]]


def _spot(data: Any, luck: random.Random) -> tuple[Any, Any]:
    return luck.choice(_spots(data) or [({"": None}, "")])


def _value(data: Any, luck: random.Random) -> None:
    parent, key = _spot(data, luck)
    parent[key] = copy.deepcopy(luck.choice(VALUES))


def _key(data: Any, luck: random.Random) -> None:
    parent, key = _spot(data, luck)
    if isinstance(parent, dict):
        names = [other for _, other in _spots(data) if isinstance(other, str)] or ["x"]
        parent[luck.choice([luck.choice(names), f"{key}s", str(key)[:-1]])] = parent.pop(key)


def _gone(data: Any, luck: random.Random) -> None:
    parent, key = _spot(data, luck)
    del parent[key]


def _copied(data: Any, luck: random.Random) -> None:
    (from_parent, from_key), (parent, key) = _spot(data, luck), _spot(data, luck)
    parent[key] = copy.deepcopy(from_parent[from_key])


# -- what comes of it ----------------------------------------------------------------------------------------------------


def checked(file: Path, plugins: Plugins) -> list[str]:
    """What `lakeward check` finds wrong."""
    try:
        config = load(file, ())
        for graph in config.graphs:
            with closing(plan(config, plugins, graph)) as pipeline:
                probe(pipeline)
    except ConfigError as error:
        return [str(problem) for problem in error.problems] or [""]
    except LakewardError as error:
        return [str(error)]
    return []


@pytest.mark.slow
@pytest.mark.one_python
@pytest.mark.parametrize("seed", range(4))
def test_any_damaged_file_is_good_or_refused_in_words(folder: Path, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    caplog.set_level(logging.ERROR)
    plugins, luck, outcomes = load_plugins(), random.Random(seed), Counter[str]()
    texts, file = [example.read_text() for example in EXAMPLES], folder / f"fuzz{seed}.yaml"
    for _ in range(2500):
        text = damaged(luck.choice(texts), luck)
        file.write_text(text, encoding="utf-8")
        begin = time.process_time()
        try:
            messages = checked(file, plugins)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{text}") from error
        assert time.process_time() - begin < LIMIT, text
        for message in messages:
            assert message.strip(), text
            assert len(message.splitlines()) == 1, (message, text)
            assert KEY not in message, (message, text)
        outcomes["refused" if messages else "good"] += 1
    assert outcomes["good"] > 50
    assert outcomes["refused"] > 1500


@pytest.mark.slow
@pytest.mark.one_python
def test_the_command_itself_ends_with_0_or_2(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    luck, texts, file = random.Random(99), [example.read_text() for example in EXAMPLES], folder / "command.yaml"
    ended: Callable[[], object] = main
    for _ in range(100):
        text = damaged(luck.choice(texts), luck)
        file.write_text(text, encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["lakeward", "check", str(file)])
        with pytest.raises(SystemExit) as end:
            ended()
        said = capsys.readouterr()
        assert end.value.code in (0, 2), (said.err, text)
        assert said.err or end.value.code == 0, text
        assert "Traceback" not in said.err
