"""Short digests of rows, to know them again: of the exact values as they are stored, the same whichever SQLite reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward_plugins.sources.sqlite.connection import Query
from lakeward_plugins.sources.sqlite.table import Table, quoted

Storage = Literal["integer", "real", "bytes"]
STORAGES: Mapping[str, Storage] = {"i": "integer", "r": "real", "t": "bytes", "b": "bytes"}  # by the first letter of typeof()
USUAL: Mapping[str, Storage] = {"int": "integer", "float": "real", "text": "bytes", "binary": "bytes"}
SAMPLES: Mapping[Storage, str] = {"integer": "0", "real": "0.5", "bytes": "x''"}
VALUES: Mapping[Storage, str] = {
    "integer": "CASE WHEN typeof({0}) = 'integer' THEN {0} END",
    "real": "CASE WHEN typeof({0}) = 'real' THEN {0} END",
    # of a long blob the length must do: a picture in each row would be read again and again
    "bytes": "CASE typeof({0}) WHEN 'text' THEN CAST({0} AS BLOB) "
    "WHEN 'blob' THEN CASE WHEN length({0}) > 4096 THEN CAST(length({0}) AS BLOB) ELSE {0} END END",
}
Values = Sequence[tuple[tuple[str, Storage], Any]]
"""Arrow arrays of what is stored in a column in one way, NULL where it is stored in another."""
ROW_DIGEST, CELL_DIGEST = 8, 4  # bytes


@frozen
class Fingerprints:
    """Of the rows that are there: a digest of each, and one of each cell of the last row."""

    rows: Mapping[int, str]
    cells: Mapping[str, str]


def fingerprints(query: Query, table: Table, columns: Iterable[str], keys: Sequence[int]) -> Fingerprints:
    """Of the rows with these keys, over these columns. Rows that are not there are left out.

    One query is enough as long as values have the types of their columns; what has another type is fetched by a second one.
    """
    names = sorted(columns)
    kinds = {column.name: column.kind for column in table.columns}
    wanted = [(name, USUAL[kinds.get(name, "text")]) for name in names]
    batch: Any = _fetch(query, table, names, wanted, keys)
    ids, types = (column.to_pylist() for column in batch.columns[:2])
    odd = {(name, STORAGES[letter]) for row in set(types) for name, letter in zip(names, row, strict=True) if letter in STORAGES}
    more = sorted(odd.difference(wanted))
    values: Values = list(zip(wanted, batch.columns[2:], strict=True))
    if more:
        values = [*values, *zip(more, _fetch(query, table, names, more, keys).columns[2:], strict=True)]
    numbers, texts = _numbers(names, values, batch.num_rows), _texts(values, batch.num_rows)
    rows = {
        key: _digest(ROW_DIGEST, row.encode(), numbers[index].tobytes(), texts[index])
        for index, (key, row) in enumerate(zip(ids, types, strict=True))
    }
    return Fingerprints(rows, _cells(names, values, numbers, types) if ids else {})


def _fetch(query: Query, table: Table, names: Sequence[str], wanted: Sequence[tuple[str, Storage]], keys: Sequence[int]) -> pa.RecordBatch:
    """Keys, the types of all values in a row as one text, and the values that are wanted; after a made-up row, as in `Table.select`."""
    types = " || ".join(f"substr(typeof(t.{quoted(name)}), 1, 1)" for name in names) or "''"
    samples = ["NULL", "''", *(SAMPLES[storage] for _, storage in wanted)]
    values = [table.key_ref, types, *(VALUES[storage].format(f"t.{quoted(name)}") for name, storage in wanted)]
    among = f"{table.key_ref} IN ({', '.join(map(str, keys))})"
    sql = f"SELECT {', '.join(samples)} UNION ALL SELECT {', '.join(values)} FROM {table.source} WHERE {among} ORDER BY 1"
    return query(sql, len(keys) + 1).to_batches()[0].slice(1)


def _numbers(names: Sequence[str], values: Values, rows: int) -> npt.NDArray[np.int64]:
    """A number for each row and column: the integer, the bits of the float, or the length of the text."""
    numbers = np.zeros((rows, len(names)), np.int64)
    for (name, storage), array in values:
        plain: Any = pc.binary_length(array) if storage == "bytes" else array
        bits = plain.fill_null(0).to_numpy(zero_copy_only=False)
        numbers[:, names.index(name)] += bits.view(np.int64) if storage == "real" else bits  # a cell has one storage, the others are 0
    return numbers


def _texts(values: Values, rows: int) -> list[bytes]:
    """All texts and blobs of a row in one piece; where each ends, the lengths say."""
    texts = [array.fill_null(b"") for (_, storage), array in sorted(values, key=lambda value: value[0]) if storage == "bytes"]
    joined: list[bytes] = pc.binary_join_element_wise(*texts, b"").to_pylist() if texts else [b""] * rows
    return joined


def _cells(
    names: Sequence[str],
    values: Values,
    numbers: npt.NDArray[np.int64],
    types: Sequence[str],
) -> dict[str, str]:
    texts = {name: array[-1].as_py() or b"" for (name, storage), array in values if storage == "bytes" and array[-1].is_valid}
    return {
        name: _digest(CELL_DIGEST, types[-1][index].encode(), numbers[-1, index].tobytes(), texts.get(name, b""))
        for index, name in enumerate(names)
    }


def _digest(size: int, *parts: bytes) -> str:
    return blake2b(b"".join(parts), digest_size=size).hexdigest()
