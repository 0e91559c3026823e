from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lakeward.errors import ConfigError, Place
from lakeward.secrets import SecretReference
from lakeward.yamlfile.document import parse, read_document


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
