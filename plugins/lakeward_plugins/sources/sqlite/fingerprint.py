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
ROW_DIGEST, CELL_DIGEST = 8, 4  # bytes


@frozen
class Fingerprints:
    """Of the rows that are there, by ascending key."""

    names: list[str]
    keys: list[int]
    types: list[str]
    """Of all values in a row, a letter for each."""
    numbers: npt.NDArray[np.int64]
    """For each row and column the integer, the bits of the float, or the length of the text."""
    texts: list[bytes]
    """All texts and blobs of a row in one piece; where each ends, the lengths say."""

    def rows(self) -> dict[int, str]:
        """A digest of each."""
        parts = zip(self.types, self.numbers, self.texts, strict=True)
        digests = (_digest(ROW_DIGEST, types.encode(), numbers.tobytes(), texts) for types, numbers, texts in parts)
        return dict(zip(self.keys, digests, strict=True))

    def cells(self) -> dict[str, str]:
        """A digest of each cell in the last row, if there is one."""
        digests, end = {}, 0
        for row in range(len(self.keys))[-1:]:
            for name, letter, number in zip(self.names, self.types[row], self.numbers[row], strict=True):
                start, end = end, end + (int(number) if STORAGES.get(letter) == "bytes" else 0)
                digests[name] = _digest(CELL_DIGEST, letter.encode(), number.tobytes(), self.texts[row][start:end])
        return digests


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
    arrays = batch.columns[2:] + (_fetch(query, table, names, more, keys).columns[2:] if more else [])
    numbers, texts = np.zeros((len(ids), len(names)), np.int64), [b""] * len(ids)
    for storage in ("integer", "real", "bytes"):
        stored = {name: array for (name, each), array in zip([*wanted, *more], arrays, strict=True) if each == storage}
        if stored and ids:
            where = [names.index(name) for name in sorted(stored)]
            one = pa.concat_arrays([stored[name] for name in sorted(stored)])  # so that 20 columns cost little more than one
            if storage == "bytes":
                texts = _joined(one, len(ids))
                one = pc.binary_length(one)
            bits = one.fill_null(0).to_numpy(zero_copy_only=False)
            # a value is stored in one way, so in the others it is 0 here
            numbers[:, where] += (bits.view(np.int64) if storage == "real" else bits).reshape(len(where), -1).T
    return Fingerprints(names, ids, types, numbers, texts)


def _joined(texts: Any, rows: int) -> list[bytes]:
    """Of column after column, each with so many rows, row by row."""
    columns = [texts[start : start + rows] for start in range(0, len(texts), rows)]
    joined: list[bytes] = pc.binary_join_element_wise(*columns, b"", null_handling="replace", null_replacement="").to_pylist()
    return joined


def _fetch(query: Query, table: Table, names: Sequence[str], wanted: Sequence[tuple[str, Storage]], keys: Sequence[int]) -> pa.RecordBatch:
    """Keys, the types of all values in a row as one text, and the values that are wanted; after a made-up row, as in `Table.select`."""
    types = " || ".join(f"substr(typeof(t.{quoted(name)}), 1, 1)" for name in names) or "''"
    samples = ["NULL", "''", *(SAMPLES[storage] for _, storage in wanted)]
    values = [table.key_ref, types, *(VALUES[storage].format(f"t.{quoted(name)}") for name, storage in wanted)]
    among = f"{table.key_ref} IN ({', '.join(map(str, keys))})"
    sql = f"SELECT {', '.join(samples)} UNION ALL SELECT {', '.join(values)} FROM {table.source} WHERE {among} ORDER BY 1"
    return query(sql, len(keys) + 1).to_batches()[0].slice(1)


def _digest(size: int, *parts: bytes) -> str:
    return blake2b(b"".join(parts), digest_size=size).hexdigest()
