"""Other columns that can tell the position."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lakeward.grouping import plain_types
from lakeward_plugins.transforms.gps_fuzz.positions import Positions

SCRUBBED = ("location", "address", "geohash", "raw")
WORDS = {  # parts of a name, between underscores, digits and capitals
    "lat", "latitude", "lon", "lng", "long", "longitude", "coord", "coords", "coordinate", "coordinates", "gps", "gpx", "nmea", "position",
    "location", "address", "street", "place", "geo", "geohash", "geom", "geometry", "wkt", "wkb", "h3", "s2", "mgrs", "utm", "pluscode",
    "what3words", "w3w", "postcode", "postal", "zip", "raw",
}  # fmt: skip
WORD = re.compile(r"h3|s2|w3w|what3words|[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
NUMBER = re.compile(r"-?\d{1,3}\.\d{3,}")
SAMPLE = 16  # rows of a batch whose texts are looked at; the report looks at all


def looks_like_a_position(name: str) -> bool:
    """By its name."""
    return any(word.lower() in WORDS for word in WORD.findall(name))


def telling(batch: pa.RecordBatch, found: Positions, columns: Sequence[str]) -> list[str]:
    """Those of the columns that carry, in one of the first rows, the row's own latitude and longitude as text."""
    kinds = plain_types(batch.schema)
    texts = [name for name in columns if kinds[name] in (pa.string(), pa.large_string())]
    sample = list(zip(found.lat[:SAMPLE].tolist(), found.lon[:SAMPLE].tolist(), strict=True))
    return [name for name in texts if any(text and carries(text, *at) for text, at in zip(_some(batch.column(name)), sample, strict=False))]


def carries(text: str, lat: float, lon: float) -> bool:
    """Whether a text has both in it, to three decimals or more."""
    numbers = [float(number) for number in NUMBER.findall(text)]
    return len(numbers) > 1 and all(any(abs(number - degrees) < 1e-3 for number in numbers) for degrees in (lat, lon))


def _some(column: pa.Array[Any]) -> list[Any]:
    try:
        values: list[Any] = column.slice(0, SAMPLE).to_pylist()
    except UnicodeDecodeError:  # text from SQLite need not be UTF-8
        return []
    return values


def without(batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """The rows with NULL in these columns."""
    for name in names:
        kind = batch.schema.field(name).type
        batch = with_column(batch, name, pa.nulls(batch.num_rows, kind))
    return batch


def with_column(batch: pa.RecordBatch, name: str, values: pa.Array[Any]) -> pa.RecordBatch:
    """The rows with these values in the column, which may be new."""
    index = batch.schema.get_field_index(name)
    if index < 0:
        return batch.append_column(pa.field(name, values.type), values)
    return batch.set_column(index, batch.schema.field(index).with_type(values.type).with_nullable(True), values)
