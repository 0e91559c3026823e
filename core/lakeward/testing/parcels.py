"""Parcels as the kernel makes them, without a kernel."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lakeward.components import ROW, Encoding, Parcel, Token

PLAIN = Encoding()


def make_parcel(
    folder: Path,
    rows: pa.RecordBatch | pa.Table,
    *,
    sequence: int = 1,
    epoch: int = 0,
    pipeline: str = "p",
    sink: str = "s",
    life: str = "0123abcd",
    encoding: Encoding = PLAIN,
) -> Parcel:
    """These rows as a real Parquet file in `folder`, under the token that the other arguments make.

    The column `_row` is left out unless the encoding asks for it. The same arguments make the same bytes.
    """
    assert rows.num_rows, "a parcel has at least one row"
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
    if ROW in table.schema.names and not encoding.row_key:
        table = table.drop_columns([ROW])
    token = Token(pipeline, sink, life, epoch, sequence)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{token.name}.parquet"
    pq.write_table(table, path, compression=encoding.compression)
    return Parcel(token, path, table.num_rows, hashlib.sha256(path.read_bytes()).hexdigest())
