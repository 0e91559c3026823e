from __future__ import annotations

import re
from pathlib import PurePosixPath

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakeward import OptionError, Rejected
from lakeward_plugins.sinks.archive_names import Template, grouped, safe

BY_CITY = Template.of("{city}/{sensor}.parquet", "file")


def names_of(template: Template, **columns: object) -> list[str]:
    codes, names, missing = template.names(pa.record_batch(columns))
    assert not missing
    return [names[code] for code in codes.tolist()]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("London", "London"), ("São Paulo", "S=C3=A3o=20Paulo"), ("a/b", "a=2Fb"),
        ("..", "=2E."), (".hidden", "=2Ehidden"), ("a.b-c_d", "a.b-c_d"),
        ("a=b", "a=3Db"), ("{x}", "=7Bx=7D"), ("nul\0\n", "nul=00=0A"), ("x" * 120, "x" * 120), ("🌡", "=F0=9F=8C=A1"),
    ],
)  # fmt: skip
def test_a_value_is_a_safe_part_of_a_name(value: str, name: str) -> None:
    assert safe(value) == name


def test_long_values_end_with_their_digest() -> None:
    long, other = "x" * 5_000, "x" * 4_999 + "y"
    assert len(safe(long)) < 120
    assert safe(long) != safe(other)


def test_long_names_end_with_their_digest() -> None:
    """Three values of 120 letters are more than a file system takes, though each of them fits."""
    template = Template.of("{a}{a}/{a}-{b}-{c}.parquet", "file")
    long, other = (names_of(template, a=["x" * 130], b=["y" * 120], c=["z" * 119 + last])[0] for last in "12")
    for name in (long, other):
        assert re.fullmatch(r"x{80}=h[0-9a-f]{32}x[^/]*/x{80}=h[0-9a-f]{32}\.parquet", name)
        assert max(map(len, name.split("/"))) <= 240
    assert long.split("/")[0] == other.split("/")[0]
    assert long != other


def test_text_that_is_not_utf8_is_rejected() -> None:
    city = pa.array([b"Oslo", b"\xff", b"Rome"]).view(pa.string())
    with pytest.raises(Rejected, match="the name of the file is made of text that is not UTF-8") as caught:
        BY_CITY.names(pa.record_batch({"city": city, "sensor": ["x"] * 3}))
    assert caught.value.rows == (1,)


@given(st.lists(st.text(min_size=1), unique=True, max_size=20))
def test_different_values_have_different_names(values: list[str]) -> None:
    names = [safe(value) for value in values]
    assert len(set(names)) == len(values)
    assert all(re.fullmatch(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*", name) and len(name.encode()) <= 120 for name in names)


@given(st.text(min_size=1), st.text(min_size=1))
def test_no_value_leaves_the_folder_or_looks_like_a_later_part(city: str, sensor: str) -> None:
    (name,) = names_of(BY_CITY, city=[city], sensor=[sensor])
    path = PurePosixPath(name)
    assert len(path.parts) == 2
    assert not any(part.startswith(".") for part in path.parts)
    assert not re.search(r"\.\d{4,}\.parquet$", name)


def test_a_sensor_that_is_called_like_a_later_part_is_another_file() -> None:
    assert names_of(BY_CITY, city=["Oslo", "Oslo"], sensor=["a", "a.0001"]) == ["Oslo/a.parquet", "Oslo/a=2E0001.parquet"]


def test_columns_may_be_of_many_types() -> None:
    columns = {
        "n": [7, -1],
        "day": pa.array([0, 19782], pa.date32()),
        "word": pa.array(["a", "b"]).dictionary_encode(),
        "yes": [True, False],
    }
    template = Template.of("n={n}/{day}/{word}-{yes}.parquet", "file")
    template.check(pa.record_batch(columns).schema, "file")
    assert names_of(template, **columns) == ["n=7/1970-01-01/a-true.parquet", "n=-1/2024-02-29/b-false.parquet"]


def test_rows_without_a_name_are_told_and_the_others_grouped() -> None:
    rows = pa.record_batch({"city": ["a", None, "", "a", "b"], "sensor": ["x", "x", "x", "x", None]})
    places, bad = grouped(*BY_CITY.names(rows))
    assert places == {"a/x.parquet": [0, 3]}
    assert bad == {
        1: "city is missing, and the name of the file is made of it",
        2: "city is empty, and the name of the file is made of it",
        4: "sensor is missing, and the name of the file is made of it",
    }


def test_keys_that_mean_one_name_are_one_file_in_order() -> None:
    template = Template.of("{a}{b}.parquet", "file")
    places, _ = grouped(*template.names(pa.record_batch({"a": ["x", "xy", "x"], "b": ["yz", "z", "yz"]})))
    assert places == {"xyz.parquet": [0, 1, 2]}


def test_no_rows_have_no_names() -> None:
    assert grouped(*BY_CITY.names(pa.record_batch({"city": pa.array([], pa.string()), "sensor": pa.array([], pa.string())}))) == ({}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{city}/{sensor}", "must end with a name and .parquet"),
        ("{city}/.parquet", "none that begins with a dot"),
        ("/{city}.parquet", "is no name"),
        ("../{city}.parquet", "is no name"),
        ("{city}/../x.parquet", "is no name"),
        ("{city}//x.parquet", "is no name"),
        (".{city}.parquet", "is no name"),
        ("{city:>10}*.parquet", "is no name"),
        ("{city.parquet", "has a brace without its other one"),
        ("{}.parquet", "without the name of a column"),
        ("", "is no name"),
    ],
)
def test_what_could_be_no_name_is_a_mistake(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=f"^file: .*{message}"):
        Template.of(text, "file")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (pa.schema([("city", pa.string())]), "the rows have no column 'sensor'; correct it, or add the column"),
        (pa.schema([("city", pa.string()), ("sensor", pa.float64())]), "column 'sensor' is double, and names are made of text"),
    ],
)
def test_columns_that_cannot_say_a_name_are_a_mistake(schema: pa.Schema, message: str) -> None:
    with pytest.raises(OptionError, match=f"^file: {message}"):
        BY_CITY.check(schema, "file")
