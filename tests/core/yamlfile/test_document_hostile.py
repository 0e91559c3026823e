"""What a hostile, damaged or careless file may hold: always a document or a mistake, at once, and never anything else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakeward.errors import ConfigError
from lakeward.yamlfile.document import MAX_BYTES, MAX_DEPTH, parse, read_document

GOOD = b"""# readings of one node
name: environmental
source:
  use: sqlite
  path: ${SENSOR_DB:-data/sensor_data.db}
transforms:
  checked: &checked {use: physics_validation, profile: "seed", rules: [1, 2.5, no, ~]}
  again: *checked
  private:
    use: gps_fuzz
    key: ${env:GPS_FUZZ_KEY}
sinks:
  raw: {use: parquet, from: source, path: 'lake/$${raw}'}
batch: {rows: 100000, wait: 5s}
"""


def data(text: str | bytes, **environment: str) -> Any:
    return parse(text, "p.yaml", environment).data


def mistakes(text: str | bytes, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "p.yaml", environment)
    return [str(problem) for problem in caught.value.problems]


def only_mistake(text: str | bytes, **environment: str) -> str:
    (mistake,) = mistakes(text, **environment)
    return mistake


# -- limits -------------------------------------------------------------------------------------------------------------


def test_a_large_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    with file.open("wb") as opened:
        opened.truncate(1 << 40)
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        read_document(file, {})
    assert data(b"a: " + b"x" * (MAX_BYTES - 3))["a"].startswith("x")


@pytest.mark.parametrize(
    "text", ["[" * 2000, "[" * 2000 + "]" * 2000, "{a: " * 2000, "\n".join(" " * n + "-" for n in range(300)), "- " * 2000]
)
def test_deep_nesting_is_refused(text: str) -> None:
    assert "nested deeper than 20 levels" in only_mistake(text)


def test_nesting_up_to_the_limit_is_read() -> None:
    assert data("[" * MAX_DEPTH + "]" * MAX_DEPTH) != []


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [" + ", ".join(["x"] * width) + "]"]
    return "\n".join(lines + [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * width) + "]" for n in range(1, levels)])


@pytest.mark.parametrize(
    ("text", "limit"),
    [(bomb(9, 9), "more than 50 aliases"), (bomb(9, 6), "more than 20000 values"), ("[" + "1," * 30_000 + "]", "more than 20000 values")],
)
def test_bombs_are_refused_at_once(text: str, limit: str) -> None:
    start = time.process_time()  # what others do on the machine does not count
    assert limit in only_mistake(text)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(("text", "place"), [("&a [*a]", "1:1"), ("x: &a {b: [1, *a]}", "1:4"), ("x: &a\n  y: *a", "1:4")])
def test_an_alias_that_contains_itself_is_refused(text: str, place: str) -> None:
    message = only_mistake(text)
    assert message.startswith(f"p.yaml:{place}: ")
    assert message.endswith("an alias that contains itself")


def test_an_alias_gives_each_place_data_of_its_own() -> None:
    found = data("a: &x {n: 1}\nb: *x")
    found["a"]["n"] = 2
    assert found["b"] == {"n": 1}


def test_duplicate_keys_are_refused_each_at_its_place() -> None:
    assert mistakes("a: 1\nb: {c: 1, c: 2}\na: 3") == [
        "p.yaml:2:11: b.c: written twice; remove one",
        "p.yaml:3:1: a: written twice; remove one",
    ]


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!secret", "!!str", "!!set", "!!binary"])
@pytest.mark.parametrize("content", ["['exit 1']", "{a: b}", "text"])
def test_tags_construct_nothing(tag: str, content: str) -> None:
    message = only_mistake(f"key: {tag} {content}")
    assert message.startswith("p.yaml:1:6: ")
    assert "tag" in message


@pytest.mark.parametrize("text", ["? [a]\n: 1", "? {a: 1}\n: 1"])
def test_a_key_is_text(text: str) -> None:
    assert only_mistake(text) == "p.yaml:1:3: a key must be text"


@pytest.mark.parametrize(
    "raw",
    [
        b"a: \xff",
        "a: 1".encode("utf-16"),
        b"a: \x00",
        b"a: [1",
        b"a: *x",
        b"a\n\tb: 1",
        b'a: "\\ud800"',
        "a: '\ud800'",
        b"%YAML 9.9\n---\na: 1",
    ],
)
def test_what_is_not_yaml_is_said_in_one_line(raw: bytes | str) -> None:
    message = only_mistake(raw)
    assert ": not valid YAML: " in message
    assert "\n" not in message


def test_a_second_document_is_refused_at_its_place() -> None:
    assert only_mistake("a: 1\n---\nb: 2") == "p.yaml:2:1: not valid YAML: but found another document"


def test_an_empty_file_is_an_empty_document() -> None:
    for raw in (b"", b"# only words\n", b"\xef\xbb\xbf", b"---\n"):
        assert data(raw) is None


# -- damage -------------------------------------------------------------------------------------------------------------


def _damaged(edits: list[tuple[str, float, bytes]]) -> bytes:
    raw = bytearray(GOOD)
    for kind, where, content in edits:
        at = int(where * len(raw))
        if kind == "insert":
            raw[at:at] = content
        elif kind == "cut":
            del raw[at : at + len(content) * 7]
        elif raw:
            raw[at % len(raw)] ^= (content or b"\1")[0]
    return bytes(raw)


TOKENS = b"\n|  |- |{|[|]|}|: |&a |*checked|!!int |'|\"|\t|${|? |%|>-|<<: *checked|\xff|\xe2\x80\xa8".split(b"|")
EDIT = st.tuples(st.sampled_from(["flip", "cut", "insert"]), st.floats(0, 1), st.sampled_from(TOKENS) | st.binary(max_size=9))


@given(st.lists(EDIT, min_size=1, max_size=6))
@settings(max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.too_slow])
def test_any_damage_to_a_file_gives_a_document_or_a_mistake(edits: list[tuple[str, float, bytes]]) -> None:
    try:
        messages = [repr(parse(_damaged(edits), "p.yaml", {}))]
    except ConfigError as error:
        messages = [str(problem) for problem in error.problems]
    assert messages
    assert not any("\n" in message for message in messages)


def test_the_undamaged_file_is_good() -> None:
    document = parse(GOOD, "p.yaml", {})
    assert document.data["transforms"]["again"] == {"use": "physics_validation", "profile": "seed", "rules": [1, 2.5, "no", None]}
    assert document.data["sinks"]["raw"]["path"] == "lake/${raw}"
