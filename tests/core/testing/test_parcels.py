from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakeward import ROW, Encoding
from lakeward.testing import make_parcel

ROWS = pa.record_batch({ROW: [7, 8], "heat": [1.5, None]})


def test_parcel_is_a_parquet_file_with_its_count_and_hash(tmp_path: Path) -> None:
    parcel = make_parcel(tmp_path, ROWS)
    assert pq.read_table(parcel.path).to_pydict() == {"heat": [1.5, None]}
    assert parcel.rows == 2
    assert parcel.sha256 == hashlib.sha256(parcel.path.read_bytes()).hexdigest()


def test_row_key_stays_when_the_encoding_asks_for_it(tmp_path: Path) -> None:
    parcel = make_parcel(tmp_path, pa.Table.from_batches([ROWS]), encoding=Encoding("zstd", row_key=True))
    assert [batch.schema.names for batch in parcel.batches()] == [[ROW, "heat"]]
    assert pq.ParquetFile(parcel.path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_same_arguments_make_the_same_bytes_and_each_token_its_own_file(tmp_path: Path) -> None:
    first, again, other = (
        make_parcel(tmp_path / "a", ROWS),
        make_parcel(tmp_path / "b", ROWS),
        make_parcel(tmp_path / "a", ROWS, sequence=2),
    )
    assert (first.token, first.sha256) == (again.token, again.sha256)
    assert (str(first.token), str(other.token)) == ("p/s-0123abcd-0000-0000000001", "p/s-0123abcd-0000-0000000002")
    assert first.path != other.path


def test_empty_parcel_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="at least one row"):
        make_parcel(tmp_path, ROWS.slice(0, 0))
