from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from lakeward.packing import pack, unpack

RECORD = np.dtype([("level", "i1"), ("active", "?"), ("peak", "<f8")])
ARRAYS = st.one_of(arrays_of.arrays(kind, arrays_of.array_shapes(min_side=0, max_dims=2)) for kind in ("<i8", "<f8", "?", RECORD))
NOTES = st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text(), st.lists(st.booleans())))


@given(NOTES, st.dictionaries(st.text(), ARRAYS, max_size=4), st.dictionaries(st.text(), st.lists(st.text()), max_size=2))
@settings(max_examples=100, deadline=None)
def test_what_is_packed_comes_back_bit_by_bit(note: dict, arrays: dict, columns: dict) -> None:
    batches = {name: pa.record_batch({"text": pa.array(values, pa.string())}) for name, values in columns.items()}
    found = unpack(pack(note, arrays, batches))
    assert (found[0], list(found[1]), found[2]) == (note, list(arrays), batches)
    for name, array in arrays.items():
        again = found[1][name]
        assert (again.dtype, again.shape, again.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert again.flags.writeable
