from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakeward.document import MAX_BYTES, MAX_DEPTH, parse, read_document
from lakeward.errors import ConfigError, Place
from lakeward.secrets import SecretReference

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


def value(text: str, **environment: str) -> Any:
    return data(f"key: {text}", **environment)["key"]


def mistakes(text: str | bytes, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "p.yaml", environment)
    return [str(problem) for problem in caught.value.problems]


def only_mistake(text: str | bytes, **environment: str) -> str:
    (mistake,) = mistakes(text, **environment)
    return mistake


# -- scalars -----------------------------------------------------------------------------------------------------------


TEXTS = [
    "no",
    "on",
    "Yes",
    "y",
    "12:30:45",
    "2026-13-45",
    "2026-01-01",
    "0b1",
    "0o8",
    "0xg",
    "1_000",
    ".",
    "1.2.3",
    "1e",
    "tRue",
    ".iNF",
    "$5",
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_only_looks_like_a_value_is_text(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize("text", ["'~'", "'5'", '"1e3"', '"true"', "''", "|-\n  5", ">-\n  5"])
def test_what_is_quoted_is_text(text: str) -> None:
    assert value(text) == text.strip("'\"|>-\n ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("017", 17), ("0o17", 15), ("0x1F", 31), ("-5", -5), ("+5", 5), ("9223372036854775808", 2**63), ("1e3", 1000.0),
        (".5", 0.5), ("1.", 1.0), ("-2.5E-2", -0.025), (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf),
        ("true", True), ("True", True), ("FALSE", False), ("~", None), ("null", None), ("Null", None), ("", None),
    ],
)  # fmt: skip
def test_plain_scalars_follow_yaml_1_2(text: str, expected: object) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number_is_a_number(text: str) -> None:
    assert math.isnan(value(text))


@pytest.mark.parametrize("text", ["9" * 5000, "-" + "9" * 5000, "1e400", "-1e400", "9" * 400 + ".5"])
def test_a_number_too_large_to_be_one_stays_text_instead_of_becoming_infinite(text: str) -> None:
    assert value(text) == text


# -- references --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${ROWS}", 7), ("'${ROWS}'", "7"), ("${ROWS:-5}", 7), ("${MISSING:-5}", 5), ('"${MISSING:-5}"', "5"), ("${MISSING:-}", None),
        ("'${MISSING:-}'", ""), ("${MISSING:-no}", "no"), ("a/${ROWS}/${MISSING:-b}", "a/7/b"), ("${EMPTY}", None), ("${EMPTY:-x}", None),
        ("$${ROWS}", "${ROWS}"), ("'$${ROWS}-${ROWS}'", "${ROWS}-7"), ("${YAML}", "[1, {a: 2}] # x"), ("${NESTED}", "${ROWS}"),
        ("${env:TOKEN}", SecretReference("env", "TOKEN")), ("'${file:/run/s:1}'", SecretReference("file", "/run/s:1")),
    ],
)  # fmt: skip
def test_references_are_replaced_before_plain_text_gets_its_type(text: str, expected: object) -> None:
    found = value(text, ROWS="7", EMPTY="", YAML="[1, {a: 2}] # x", NESTED="${ROWS}")
    assert found == expected
    assert type(found) is type(expected)


def test_an_unset_variable_is_named_at_its_place_with_the_way_out() -> None:
    assert only_mistake("a:\n  b: ${DB}") == (
        "p.yaml:2:6: a.b: environment variable DB is not set and has no default (write ${DB:-default} to give one)"
    )


def test_a_secret_is_the_whole_value_or_a_mistake() -> None:
    assert only_mistake("url: https://${env:TOKEN}@host") == "p.yaml:1:6: url: ${env:...} is a secret and must be the whole value"


@pytest.mark.parametrize("text", ["${DB:data/x.db}", "${DB", "${}", "${DB-x}", "${A:-${B}}", "${Env:X}", "x ${1}"])
def test_a_misspelt_reference_is_not_taken_for_text(text: str) -> None:
    message = only_mistake(f"key: '{text}'", DB="1", A="2")
    assert message.startswith("p.yaml:1:6: key: ")
    assert "$${" in message


def test_a_reference_without_quotes_in_braces_is_explained() -> None:
    assert only_mistake("a: {b: ${DB}}").endswith("inside {...} a value with ${...} needs quotes")


# -- what a hostile or broken file may hold ----------------------------------------------------------------------------


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
    start = time.monotonic()
    assert limit in only_mistake(text)
    assert time.monotonic() - start < 1


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


# -- places ------------------------------------------------------------------------------------------------------------


def test_keys_and_values_have_their_places_in_block_and_flow_style() -> None:
    document = parse("name: x\nsinks:\n  raw: {use: parquet, rules: [1, {max: 2}]}\n  '2':\n    - a\n", "p.yaml", {})
    expected = {
        ("name",): ((1, 1), (1, 7)),
        ("sinks", "raw"): ((3, 3), (3, 8)),
        ("sinks", "raw", "use"): ((3, 9), (3, 14)),
        ("sinks", "raw", "rules", 0): ((3, 31), (3, 31)),
        ("sinks", "raw", "rules", 1, "max"): ((3, 35), (3, 40)),
        ("sinks", "2", 0): ((5, 7), (5, 7)),
    }
    for path, (key, content) in expected.items():
        assert document.place(path, at_key=True) == Place("p.yaml", *key)
        assert document.place(path) == Place("p.yaml", *content)


def test_what_was_not_written_has_the_place_of_what_is_around_it() -> None:
    document = parse("source:\n  use: sqlite\n", "p.yaml", {})
    assert document.place(("source", "path", "x"), at_key=True) == Place("p.yaml", 2, 3)
    assert document.place(("sinks",)) == Place("p.yaml", 1, 1)


def test_columns_count_characters_and_not_bytes() -> None:
    document = parse("ключ: {größe: 1, 温度: x}", "p.yaml", {})
    assert document.place(("ключ", "温度"), at_key=True) == Place("p.yaml", 1, 18)
    assert document.place(("ключ", "温度")) == Place("p.yaml", 1, 22)


def test_a_byte_order_mark_moves_nothing() -> None:
    assert parse(b"\xef\xbb\xbfname: x", "p.yaml", {}).place(("name",)) == Place("p.yaml", 1, 7)


def test_an_overriding_text_has_one_place() -> None:
    place = Place("--set a")
    assert set(parse("{b: [1]}", "x", {}, fixed=place).places.values()) == {(place, place)}
    for text in ("[1, {", "*x", "[" * 30, "!!str 5", "${MISSING}", "{a: 1, a: 2}"):
        with pytest.raises(ConfigError) as caught:
            parse(text, "x", {}, fixed=place)
        assert [problem.place for problem in caught.value.problems] == [place]


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    closed = tmp_path / "closed.yaml"
    closed.write_text("a: 1")
    closed.chmod(0)
    for file, why in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"^{file}: cannot be read: {why}$"):
            read_document(file, {})
    with pytest.raises(ConfigError, match=f"^{closed}: cannot be read: Permission denied$"), _not_root():
        read_document(closed, {})


@contextmanager
def _not_root() -> Iterator[None]:
    """Root may read everything, and the tests of a container often run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


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
