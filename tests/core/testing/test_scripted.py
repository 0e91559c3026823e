from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import lakeward.testing
from lakeward import ROW, Retry
from lakeward.testing import Crash, Crashed, End, Fail, ScriptedSource, SourceContract, TransformContract
from lakeward.yamlfile.build import build

TEN = [{"heat": float(number), "note": None if number % 3 else "x"} for number in range(10)]
KEYED = pa.record_batch({ROW: [100, 200], "heat": [0.5, 1.5], "note": ["a", None]})


def heats(source: ScriptedSource, after: Any = None, limit: int = 100) -> list[list[float]]:
    return [batch.rows["heat"].to_pylist() for batch in source.read(after, limit)]


class TestScriptedSource(SourceContract):
    def make(self, tmp_path: Path) -> ScriptedSource:
        return ScriptedSource([TEN, KEYED, []])


class TestScriptedSourceFromDicts(SourceContract):
    def make(self, tmp_path: Path) -> ScriptedSource:
        return ScriptedSource([TEN[:4], TEN[4:]])


def test_crash_goes_past_every_handler_and_happens_once() -> None:
    script = [TEN[:2], Crash(), TEN[2:4]]
    seen = []
    with pytest.raises(Crashed):
        seen.extend(ScriptedSource(script).read(None, 10))
    assert not issubclass(Crashed, Exception)
    assert [batch.position for batch in ScriptedSource(script).read(None, 10)] == [{"index": 2}, {"index": 4}]
    assert heats(ScriptedSource(script), {"index": 2}) == [[2.0, 3.0]]


def test_failure_is_raised_once_where_it_stands() -> None:
    script = [TEN[:2], Fail(Retry("database is locked")), Fail(OSError("gone")), TEN[2:4]]
    source = ScriptedSource(script)
    batches = source.read(None, 10)
    assert next(batches).rows.num_rows == 2
    with pytest.raises(Retry, match="database is locked"):
        next(batches)
    with pytest.raises(OSError, match="gone"):
        heats(source, {"index": 2})
    assert heats(source, {"index": 2}) == [[2.0, 3.0]]


def test_end_holds_back_what_follows_until_the_next_read() -> None:
    source = ScriptedSource([TEN[:2], End(), TEN[2:3]])
    assert heats(source) == [[0.0, 1.0]]
    assert heats(source, {"index": 2}) == [[2.0]]
    assert heats(source, {"index": 3}) == []


def test_markers_before_the_position_do_not_fire() -> None:
    assert heats(ScriptedSource([TEN[:2], Crash(), TEN[2:4], TEN[4:5]]), {"index": 4}) == [[4.0]]


def test_items_are_cut_at_the_limit() -> None:
    assert heats(ScriptedSource([TEN[:5], TEN[5:6]]), {"index": 1}, limit=3) == [[1.0, 2.0, 3.0], [4.0], [5.0]]


def test_dicts_are_numbered_unless_they_have_a_key() -> None:
    source = ScriptedSource([[{"heat": 1}, {ROW: 40, "heat": 2}], [{"heat": 3}]])
    assert [batch.rows[ROW].to_pylist() for batch in source.read(None, 10)] == [[1, 40], [3]]


def test_script_can_stand_in_yaml() -> None:
    source = build(ScriptedSource, {"script": [[{"heat": 1.0}]]}, Path())
    assert heats(source) == [[1.0]]


def test_example_of_the_package_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lakeward_night.py").write_text(
        "from attrs import define\nfrom lakeward import filtered, hookimpl, option\n"
        "import pyarrow.compute as pc\n\n@define\nclass NightFilter:\n    field: str = option(help='Column with the hour.')\n"
        "    ports = ('main',)\n    row_wise = True\n    def apply(self, batch):\n"
        "        night = pc.less(batch[self.field], 6)\n"
        "        return {'main': batch.filter(night), 'filtered': filtered(batch.filter(pc.invert(night)), 'day')}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    lines = (lakeward.testing.__doc__ or "").splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(line.removeprefix("    ") for line in lines if line.startswith("    ")), names)
    suite = names["TestNightFilter"]()
    assert isinstance(suite, TransformContract)
    suite.test_deterministic()
    suite.test_each_row_leaves_exactly_once()
    assert names["TestPlugin"].module == "lakeward_night"


def test_a_part_is_read_again_under_another_epoch_and_then_ends() -> None:
    source = ScriptedSource([[{"id": 1}, {"id": 2}, {"id": 3}], Fail(Retry("not now")), [{"id": 4}, {"id": 5}]])
    position = source.reread(2, 4, 1_000_000)
    batches = []
    with pytest.raises(Retry):
        batches += list(source.read(position, 10))
    for batch in source.read(position, 10):
        batches.append(batch)
        position = batch.position
    assert [batch.rows["id"].to_pylist() for batch in batches] == [[2, 3], [4]]
    assert {batch.epoch for batch in batches} == {1_000_000}
    assert list(source.read(position, 10)) == []
    (rest,) = source.read(source.reread(5, None, 7), 10)
    assert (rest.rows["id"].to_pylist(), rest.epoch, rest.position) == ([5], 7, {"index": 5, "epoch": 7})
