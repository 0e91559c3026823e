"""What a transform remembers, as bytes and back: for `state` and `restore` of those that have more than a few numbers.

A line of JSON says what follows: arrays as they lie in memory, then batches as Arrow streams. So ten thousand keys take milliseconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from lakeward.grouping import Array


def pack(note: Mapping[str, Any], arrays: Mapping[str, Array], batches: Mapping[str, pa.RecordBatch] | None = None) -> bytes:
    """`note` is what JSON can hold. Arrays may have any shape, and fields; what they hold must be numbers or truths."""
    streams = {name: _to_stream(batch) for name, batch in (batches or {}).items()}
    head = {
        "note": note,
        "arrays": [[name, np.lib.format.dtype_to_descr(array.dtype), array.shape] for name, array in arrays.items()],
        "batches": [[name, len(stream)] for name, stream in streams.items()],
    }
    return b"".join([json.dumps(head).encode(), b"\n", *(array.tobytes() for array in arrays.values()), *streams.values()])


def unpack(state: bytes) -> tuple[dict[str, Any], dict[str, Array], dict[str, pa.RecordBatch]]:
    """What was packed; the arrays may be changed."""
    place = state.index(b"\n") + 1
    head, arrays, batches = json.loads(state[:place]), {}, {}
    for name, kind, shape in head["arrays"]:
        found = np.frombuffer(state, np.lib.format.descr_to_dtype(kind), math.prod(shape), place)
        arrays[name] = found.reshape(shape).copy()
        place += found.nbytes
    for name, size in head["batches"]:
        with pa.ipc.open_stream(pa.py_buffer(state[place : place + size])) as stream:
            batches[name] = stream.read_next_batch()
        place += size
    return head["note"], arrays, batches


def _to_stream(batch: pa.RecordBatch) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(out.getvalue().to_pybytes())
