"""What the Parquet source promises beyond the contract: each file once, in order, and nothing guessed."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import Batch, OptionError, Refused, Retry
from lakeward.testing import SourceContract
from lakeward_plugins.sources.parquet import ParquetSource


def write(path: Path, values: range | list[int], row_group_size: int = 7, **columns: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"value": np.array(values, np.int64), **columns}), path, row_group_size=row_group_size)
    return path


def read(path: Path, limit: int = 5, after: dict | None = None, **options) -> list[Batch]:
    with closing(ParquetSource(path, **options)) as source:
        return list(source.read(after, limit))


def values(batches: list[Batch] | Iterator[Batch]) -> list[int]:
    return [value for batch in batches for value in batch.rows.column("value").to_pylist()]


class TestParquetSource(SourceContract):
    def make(self, tmp_path: Path) -> ParquetSource:
        if not (tmp_path / "lake").exists():
            write(tmp_path / "lake" / "a.parquet", range(10), row_group_size=4)
            write(tmp_path / "lake" / "b" / "empty.parquet", [])
            write(tmp_path / "lake" / "b" / "x.parquet", range(10, 11))
            write(tmp_path / "lake" / "c.parquet", range(11, 40), row_group_size=100)
        return ParquetSource(tmp_path / "lake")

    def while_suspended(self, tmp_path: Path) -> None:
        write(tmp_path / "lake" / "d.parquet", range(40, 50))


def test_files_come_in_the_order_of_their_names_and_keys_are_row_numbers(tmp_path: Path) -> None:
    write(tmp_path / "2024-01-02.parquet", range(6, 9))
    write(tmp_path / "2024-01-01.parquet", range(6), row_group_size=4)
    batches = read(tmp_path, 4)
    assert values(batches) == list(range(9))
    assert [(batch.origin, batch.rows.column("_row").to_pylist()) for batch in batches] == [
        ("2024-01-01.parquet", [0, 1, 2, 3]), ("2024-01-01.parquet", [4, 5]), ("2024-01-02.parquet", [0, 1, 2]),
    ]  # fmt: skip
    assert batches[0].position == {"file": "2024-01-01.parquet", "row": 4, "of": 6, "done": ""}


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), min_size=1, max_size=5),
    limit=st.integers(1, 9),
    again=st.integers(1, 9),
)
def test_goes_on_after_any_position(tmp_path_factory: pytest.TempPathFactory, sizes: list, limit: int, again: int) -> None:
    folder, total = tmp_path_factory.mktemp("lake"), 0
    for number, (size, group) in enumerate(sizes):
        write(folder / f"{number}.parquet", range(total, total + size), row_group_size=group)
        total += size
    batches = read(folder, limit)
    assert values(batches) == list(range(total))
    for index, batch in enumerate(batches):
        assert values(read(folder, again, json.loads(json.dumps(batch.position)))) == values(batches[index + 1 :])


def test_row_groups_before_the_position_are_not_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", range(1000), row_group_size=100)
    start = pq.read_metadata(path).row_group(5).column(0).dictionary_page_offset
    content = bytearray(path.read_bytes())
    content[4:start] = b"\xff" * (start - 4)  # what is before the sixth row group is garbage now
    path.write_bytes(content)
    assert values(read(path, 1000, {"file": "a.parquet", "row": 550, "of": 1000, "done": ""})) == list(range(550, 1000))
    with pytest.raises(Refused, match=r"a\.parquet cannot be read"):
        read(path)


def test_a_file_that_comes_later_is_read_once_wherever_its_name_sorts(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", range(5))
    write(tmp_path / "d.parquet", range(5, 10))
    source = ParquetSource(tmp_path)
    last = list(source.read(None, 3))[-1].position
    write(tmp_path / "a.parquet", [100])
    write(tmp_path / "c.parquet", [101])
    write(tmp_path / "e.parquet", [102])
    later = list(source.read(last, 3))
    assert values(later) == [100, 101, 102]
    assert values(source.read(later[0].position, 3)) == [101, 102]
    assert values(source.read(later[-1].position, 3)) == []


def test_a_file_begun_is_finished_before_an_earlier_name_that_came_since(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", range(5))
    half = read(tmp_path, 3)[0].position
    write(tmp_path / "a.parquet", [100])
    assert values(read(tmp_path, 3, half)) == [3, 4, 100]


def test_files_that_are_done_may_be_removed(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet", range(5))
    write(tmp_path / "b.parquet", range(5, 9))
    position = read(tmp_path)[0].position
    first.unlink()
    assert values(read(tmp_path, 5, position)) == list(range(5, 9))


def test_a_file_that_is_gone_or_changed_half_way_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", range(5))
    write(tmp_path / "b.parquet", range(5))
    half = read(tmp_path, 3)[0].position
    write(path, range(6))
    with pytest.raises(Refused, match=r"a\.parquet had 5 rows when it was begun and has 6 now"):
        read(tmp_path, 3, half)
    path.unlink()
    with pytest.raises(Refused, match=r"a\.parquet is gone, and only 3 of its 5 rows were read"):
        read(tmp_path, 3, half)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.parquet", [0]), (".", [0, 1, 2]), ("sub", [1, 2]), ("*.parquet", [0]), ("sub/*.parquet", [1]), ("**/*.parquet", [0, 1, 2]),
        ("su?/x*", [1]), ("sub/_day=1", [2]), ("sub/_day=*/*", [2]), ("_delta_log/1.checkpoint.parquet", [7]),
    ],
)  # fmt: skip
def test_a_path_is_a_file_a_folder_or_a_pattern(tmp_path: Path, pattern: str, expected: list[int]) -> None:
    write(tmp_path / "a.parquet", [0])
    write(tmp_path / "sub" / "x.parquet", [1])
    write(tmp_path / "sub" / "_day=1" / "y.parquet", [2])
    write(tmp_path / "_delta_log" / "1.checkpoint.parquet", [7])
    write(tmp_path / ".tmp.parquet", [8])
    (tmp_path / "readme.txt").write_text("not for us")
    assert sorted(values(read(tmp_path / pattern))) == expected


def test_columns_come_in_the_order_asked_for_with_any_arrow_type(tmp_path: Path) -> None:
    nested = pa.array([{"x": 1, "y": ["a"]}, None])
    when = pa.array([0, None], pa.timestamp("us", "UTC"))
    kind = pa.array(["a", "b"]).dictionary_encode()
    write(tmp_path / "a.parquet", [1, 2], nested=nested, when=when, kind=kind)
    rows = read(tmp_path, columns=["kind", "nested", "when"])[0].rows
    assert rows.schema.names == ["_row", "kind", "nested", "when"]
    assert rows.column("nested").equals(nested)
    assert rows.column("when").equals(when)
    assert rows.column("kind").cast(pa.string()).to_pylist() == ["a", "b"]


@pytest.mark.parametrize(
    ("make", "options", "option", "words"),
    [
        (lambda path: None, {}, "path", "does not exist"),
        (lambda path: path.mkdir(), {}, "path", "no Parquet files in"),
        (lambda path: (path.mkdir(), (path / "a.parquet").write_text("hello" * 9)), {}, "path", "not a Parquet file"),
        (lambda path: (path.mkdir(), (path / "a.parquet").touch()), {}, "path", "not a Parquet file"),
        (lambda path: write(path / "a.parquet", [1]), {"columns": ["vale"]}, "columns[0]", "no column 'vale' in"),
        (lambda path: write(path / "a.parquet", [1]), {"columns": ["value", "value"]}, "columns", "'value' is there twice"),
        (lambda path: write(path / "a.parquet", [1], _row=[1]), {}, "columns", "'_row', a name kept for row keys"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, make, options: dict, option: str, words: str) -> None:
    make(tmp_path / "lake")
    with pytest.raises(OptionError) as caught:
        ParquetSource(tmp_path / "lake", **options).schema()
    assert caught.value.option == option
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_row_keys_of_an_earlier_delivery_can_be_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [5], _row=[77])
    assert read(tmp_path, columns=["value"])[0].rows.to_pylist() == [{"_row": 0, "value": 5}]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"extra": [1]}, "column 'extra' is int64, and not there in the first file"),
        ({"value": [1.5]}, "column 'value' is double, and int64 in the first file"),
        ({"other": [1]}, "column 'value' is not there, and int64 in the first file"),
    ],
)
def test_a_file_with_other_columns_is_refused_by_name(tmp_path: Path, columns: dict, words: str) -> None:
    write(tmp_path / "a.parquet", [1])
    pq.write_table(pa.table({"value": [1], **columns} if "extra" in columns else columns), tmp_path / "b.parquet")
    batches = ParquetSource(tmp_path).read(None, 5)
    assert values([next(batches)]) == [1]
    with pytest.raises(Refused) as caught:
        next(batches)
    assert f"{tmp_path / 'b.parquet'}: {words}" in str(caught.value)


def test_the_order_of_columns_and_columns_not_asked_for_do_not_matter(tmp_path: Path) -> None:
    pq.write_table(pa.table({"value": [1], "a": [2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": [4], "value": [3]}), tmp_path / "b.parquet")
    assert [row for batch in read(tmp_path) for row in batch.rows.to_pylist()] == [
        {"_row": 0, "value": 1, "a": 2}, {"_row": 0, "value": 3, "a": 4},
    ]  # fmt: skip
    pq.write_table(pa.table({"value": [5], "b": ["x"]}), tmp_path / "c.parquet")
    assert values(read(tmp_path, columns=["value"])) == [1, 3, 5]


def test_a_file_still_being_written_is_tried_again(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole" / "a.parquet", range(9)).read_bytes()
    write(tmp_path / "lake" / "0.parquet", [100])
    batches = ParquetSource(tmp_path / "lake").read(None, 5)
    (tmp_path / "lake" / "1.parquet").write_bytes(whole[: len(whole) // 2])
    position = next(batches).position
    with pytest.raises(Retry, match="still being written"):
        next(batches)
    (tmp_path / "lake" / "1.parquet").write_bytes(whole)
    assert values(read(tmp_path / "lake", 5, position)) == list(range(9))


def test_a_folder_that_is_gone_is_tried_again(tmp_path: Path) -> None:
    write(tmp_path / "lake" / "a.parquet", [1])
    source = ParquetSource(tmp_path / "lake")
    source.schema()
    (tmp_path / "lake").rename(tmp_path / "away")
    with pytest.raises(Retry, match="is gone"):
        next(source.read(None, 5))


@pytest.mark.parametrize("position", [{"id": 5}, {"file": 1}, {"file": "a", "row": True}, {"file": "a", "row": "1"}])
def test_a_position_of_something_else_is_refused(tmp_path: Path, position: dict) -> None:
    write(tmp_path / "a.parquet", [1])
    with pytest.raises(Refused, match="not a position in Parquet files"):
        read(tmp_path, 5, position)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    rows = 2_000_000
    path = write(tmp_path / "a.parquet", range(rows), row_group_size=rows, noise=np.random.default_rng(1).random(rows))
    before = pa.total_allocated_bytes()
    most, count = 0, 0
    for batch in ParquetSource(path).read(None, 50_000):
        most = max(most, pa.total_allocated_bytes() - before)
        count += batch.rows.num_rows
    assert count == rows
    assert most < rows * 16 / 2
