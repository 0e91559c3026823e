"""What is remembered from batch to batch: as bytes, and back.

A line of JSON says what follows: arrays as they lie in memory, then batches as Arrow streams.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from lakeward.grouping import Array


def pack(note: Mapping[str, Any], arrays: Mapping[str, Array], batches: Mapping[str, pa.RecordBatch]) -> bytes:
    """`note` is JSON; names are free of meaning here."""
    streams = {name: _to_stream(batch) for name, batch in batches.items()}
    head = {
        "note": note,
        "arrays": [[name, array.dtype.str, len(array)] for name, array in arrays.items()],
        "batches": [[name, len(stream)] for name, stream in streams.items()],
    }
    return b"".join([json.dumps(head).encode(), b"\n", *(array.tobytes() for array in arrays.values()), *streams.values()])


def unpack(state: bytes) -> tuple[dict[str, Any], dict[str, Array], dict[str, pa.RecordBatch]]:
    """What was packed; the arrays may be changed."""
    line, _, rest = state.partition(b"\n")
    head, arrays, batches, place = json.loads(line), {}, {}, 0
    for name, kind, count in head["arrays"]:
        arrays[name] = np.frombuffer(rest, np.dtype(kind), count, place).copy()
        place += arrays[name].nbytes
    for name, size in head["batches"]:
        with pa.ipc.open_stream(pa.py_buffer(rest[place : place + size])) as stream:
            batches[name] = stream.read_next_batch()
        place += size
    return head["note"], arrays, batches


def _to_stream(batch: pa.RecordBatch) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(out.getvalue().to_pybytes())
