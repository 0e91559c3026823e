"""Contract suites for plugin authors; needs the extra `lakeward[test]`. A filter is tested with

    import pyarrow as pa
    from lakeward.testing import PluginContract, TransformContract
    from lakeward_night import NightFilter

    class TestNightFilter(TransformContract):  # pytest finds one test for each promise of a transform
        def make(self): return NightFilter(field="hour")
        def rows(self): return pa.record_batch({"_row": range(24), "hour": range(24)})

    class TestPlugin(PluginContract): module = "lakeward_night"

A source has `make(tmp_path)`, a sink has `make(tmp_path)` and `read_back(tmp_path)`.
"""

from lakeward.testing.parcels import make_parcel
from lakeward.testing.plugins import PluginContract
from lakeward.testing.scripted import Crash, Crashed, End, Fail, ScriptedSource
from lakeward.testing.sinks import SinkContract
from lakeward.testing.sources import SourceContract
from lakeward.testing.transforms import TransformContract

__all__ = [
    "Crash", "Crashed", "End", "Fail", "PluginContract", "ScriptedSource", "SinkContract", "SourceContract", "TransformContract",
    "make_parcel",
]  # fmt: skip
