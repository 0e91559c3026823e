"""Other columns that can tell the position: scrubbed, warned of, or kept."""

import logging
from typing import Any

import pyarrow as pa
import pytest
from fuzzed import batch, fuzz

from lakeward_plugins.transforms.gps_fuzz.columns import looks_like_a_position


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def rows(**more: Any) -> pa.RecordBatch:
    return batch([48.12345, 48.23456], [11.98765, 11.87654], **more)


def test_what_can_carry_the_position_is_scrubbed_by_default(caplog: pytest.LogCaptureFixture) -> None:
    out = fuzz().apply(rows(location=["Building A", "B"], geohash=["u281", "u281"], raw=[b"1", None], note=["a", "b"]))["main"]
    for name, kind in (("location", pa.string()), ("geohash", pa.string()), ("raw", pa.binary())):
        assert out.column(name).null_count == 2
        assert out.schema.field(name).type == kind
    assert out.column("note").to_pylist() == ["a", "b"]
    assert warnings(caplog) == [
        "gps_fuzz: column location, geohash, raw: NULL from here on, as it can tell the position; keep_fields would keep it"
    ]


def test_what_is_kept_is_not_scrubbed(caplog: pytest.LogCaptureFixture) -> None:
    out = fuzz(keep_fields=["location"]).apply(rows(location=["Building A", "Building B"], raw=[1, 2]))["main"]
    assert out.column("location").to_pylist() == ["Building A", "Building B"]
    assert out.column("raw").null_count == 2
    assert len(warnings(caplog)) == 1


def test_a_name_that_looks_like_a_position_is_warned_of_once_and_before_there_are_rows(caplog: pytest.LogCaptureFixture) -> None:
    transform = fuzz(scrub_fields=["site"], keep_fields=["gps_quality"])
    given = rows(gps_quality=[1, 2], gps_raw=["a", "b"], homeAddress=["a", "b"], site=["a", "b"])
    transform.apply(given.slice(0, 0))
    assert warnings(caplog) == [
        "gps_fuzz: column site: NULL from here on, as it can tell the position; keep_fields would keep it",
        "gps_fuzz: column gps_raw, homeAddress: goes on, but its name looks like a position; "
        "name it in scrub_fields, or in keep_fields to hear no more of it",
    ]
    transform.apply(given)
    assert len(warnings(caplog)) == 2


def test_a_scrubbed_column_that_is_not_there_is_warned_of_if_somebody_named_it(caplog: pytest.LogCaptureFixture) -> None:
    fuzz(scrub_fields=["location", "strret"]).apply(rows())
    assert warnings(caplog) == ["gps_fuzz: column strret: named in scrub_fields, but there is no such column"]


@pytest.mark.parametrize(
    "text", ["48.12345,11.98765", "POINT (11.98765 48.12345)", '{"lat": 48.1234, "lng": 11.9877}', "at 48.123 / 11.988"]
)
def test_text_that_carries_the_position_is_warned_of_once_without_showing_it(text: str, caplog: pytest.LogCaptureFixture) -> None:
    transform = fuzz()
    for _ in range(2):
        transform.apply(rows(note=[None, text.replace("48.1234", "48.2345").replace("48.123 ", "48.235 ").replace("11.987", "11.876")]))
        transform.apply(rows(note=[text, "nothing"]))
    assert [message for message in warnings(caplog) if "note" in message] == [
        "gps_fuzz: column note: CARRIES THE TRUE POSITION as text; name it in scrub_fields, or in keep_fields to hear no more of it"
    ]
    assert not [digits for digits in ("48.1", "11.9", "48.2", "11.8") if digits in caplog.text]


def test_text_of_a_dictionary_is_looked_at_too(caplog: pytest.LogCaptureFixture) -> None:
    fuzz().apply(rows(note=pa.array(["48.12345,11.98765", "x"]).dictionary_encode()))
    assert "column note: CARRIES THE TRUE POSITION" in caplog.text


def test_other_numbers_in_text_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    fuzz().apply(rows(note=["v1.234.567 of 2024", "51.12345,13.98765"], more=pa.array([b"\xff48.1", b"x"]).view(pa.string())))
    assert not warnings(caplog)


@pytest.mark.parametrize(
    "name", ["gps", "GPSRaw", "raw_location", "lat2", "home_lat", "streetAddress", "geo_json", "h3_cell", "wkt", "zip"]
)
def test_names_that_look_like_a_position(name: str) -> None:
    assert looks_like_a_position(name)


@pytest.mark.parametrize("name", ["flat", "platform", "latency", "longest", "coordinator", "geology", "drawn", "temperature", "placebo"])
def test_names_that_only_contain_such_a_word(name: str) -> None:
    assert not looks_like_a_position(name)
