import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import h3
import pyarrow as pa
import pytest
from lakeward_h3.transform import H3, Fields

from lakeward import OptionError
from lakeward.testing import PluginContract, TransformContract
from lakeward.yamlfile.build import Mistakes, build

PIER, PIER_CELL = (37.769377, -122.388903), "89283082e73ffff"  # the example of H3's own documentation


def batch(*places: tuple[Any, Any]) -> pa.RecordBatch:
    lat, lon = zip(*places, strict=True)
    return pa.record_batch({"_row": pa.array(range(len(places)), pa.int64()), "latitude": lat, "longitude": lon})


def test_a_known_place_has_its_known_cell() -> None:
    assert H3().apply(batch(PIER)).column("h3_cell").to_pylist() == [PIER_CELL]


def test_cells_follow_the_resolution() -> None:
    for resolution in range(16):
        cells = H3(resolution=resolution, column="hexagon").apply(batch(PIER)).column("hexagon").to_pylist()
        assert cells == [h3.latlng_to_cell(*PIER, resolution)]


def test_cells_as_integers_are_the_same_ids() -> None:
    cells = H3(cell_as="int").apply(batch(PIER)).column("h3_cell")
    assert cells.type == pa.int64()
    assert cells.to_pylist() == [int(PIER_CELL, 16)]


def test_rows_keep_their_order_and_their_own_cell() -> None:
    places = [(48.1, 11.5), PIER, (-33.9, 18.4), PIER, (48.1, 11.5)]
    cells = H3().apply(batch(*places)).column("h3_cell").to_pylist()
    assert cells == [h3.latlng_to_cell(*place, 9) for place in places]


INVALID = [(None, 1.0), (1.0, None), (math.nan, 1.0), (91.0, 1.0), (1.0, -180.5), (math.inf, 1.0)]


def test_rows_without_a_valid_position_pass_without_a_cell_and_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    out = H3().apply(batch(*INVALID, PIER))
    assert out.column("h3_cell").to_pylist() == [None] * 6 + [PIER_CELL]
    assert out.column("latitude").to_pylist()[3] == 91.0
    assert "6 of 7 rows have no valid position" in caplog.text


def test_replaced_positions_are_the_centres_and_nothing_else() -> None:
    out = H3(replace=True, resolution=7).apply(batch(*INVALID, PIER))
    centre = h3.cell_to_latlng(h3.latlng_to_cell(*PIER, 7))
    assert list(zip(out.column("latitude").to_pylist(), out.column("longitude").to_pylist(), strict=True)) == [(None, None)] * 6 + [centre]


def test_whole_degrees_are_positions_too() -> None:
    assert H3().apply(batch((48, 11))).column("h3_cell").to_pylist() == [h3.latlng_to_cell(48, 11, 9)]
    assert H3(replace=True).apply(batch((48, 11))).schema.field("latitude").type == pa.float64()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": Fields(lat="lat")}, r"fields\.lat: no column 'lat'; columns are _row, latitude, longitude"),
        ({"column": "latitude"}, "column: there is already a column 'latitude'"),
    ],
)
def test_what_does_not_fit_the_columns_is_told_before_there_are_rows(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        H3(**options).apply(batch(PIER).slice(0, 0))


def test_text_is_not_taken_for_degrees() -> None:
    with pytest.raises(OptionError, match=r"fields\.lon: column 'longitude' is string; `schematize` it"):
        H3().apply(batch((48.1, "11.5")))


def test_options_come_from_yaml() -> None:
    transform = build(H3, {"resolution": 5, "fields": {"lat": "y", "lon": "x"}, "cell_as": "int"}, Path())
    assert transform == H3(resolution=5, fields=Fields("y", "x"), cell_as="int")
    with pytest.raises(Mistakes, match="expected from 0 to 15, got 16"):
        build(H3, {"resolution": 16}, Path())


class TestH3Contract(TransformContract):
    def make(self) -> H3:
        return H3(resolution=7)

    def rows(self) -> pa.RecordBatch:
        return batch(*INVALID, *[(48.1 + number % 5, 11.5) for number in range(20)])


class TestH3ReplacingContract(TestH3Contract):
    def make(self) -> H3:
        return H3(replace=True, cell_as="int")


class TestPlugin(PluginContract):
    module = "lakeward_h3"


def test_importing_the_package_imports_neither_h3_nor_arrow() -> None:
    code = "import sys, lakeward_h3; print([name for name in ('h3', 'pyarrow', 'numpy') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_pipeline_of_the_readme_is_right(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (tmp_path / "p.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    sensor = ["sensor", "run", "--db", "data/sensor_data.db", "--rows", "5", "--rate", "0"]
    for arguments in (sensor, ["run", "p.yaml", "--dry-run"]):
        command = [sys.executable, "-m", "lakeward", *arguments]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
