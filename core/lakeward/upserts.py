"""Rows that replace older ones: windows and alerts that are given out again under the same id with a greater revision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lakeward.errors import Refused, Rejected


def newest(rows: pa.RecordBatch, keys: Sequence[str], revision: str) -> pa.RecordBatch:
    """Of the rows of each key the one with the greatest revision; of equal ones, or without revisions, the last.

    Raises Refused for a column that is not there or cannot be a key, Rejected for rows without a key.
    """
    from lakeward.grouping import (
        KEY_TYPES,
        group_codes,
        plain_types,
        undecodable,
    )  # with pyarrow.compute, for which only those who upsert pay

    types = plain_types(rows.schema)
    for name in (*keys, *filter(None, [revision])):
        if name not in types:
            raise Refused(f"upsert_by: the rows have no column {name!r}; correct `upsert_by` and `revision`")
    for name in keys:
        if not any(fits(types[name]) for fits in KEY_TYPES):
            raise Refused(f"upsert_by: column {name!r} is {types[name]}; keys are text, whole numbers or booleans")
    missing = np.zeros(rows.num_rows, np.bool_)
    for name in (*keys, *filter(None, [revision])):
        missing |= rows.column(name).is_null().to_numpy(zero_copy_only=False)
    if missing.any():
        raise Rejected("upsert_by: the row has no key, or no revision", np.flatnonzero(missing).tolist())
    try:
        codes, _ = group_codes(rows, pa.schema([(name, types[name]) for name in keys]))
    except UnicodeDecodeError:
        raise Rejected("upsert_by: the key is text that is not UTF-8", undecodable(rows, keys).tolist()) from None
    ranks = np.unique(rows.column(revision).to_numpy(zero_copy_only=False), return_inverse=True)[1] if revision else np.zeros(len(codes))
    order = np.lexsort((ranks, codes))  # stable: of equal ones the last stays last
    last = np.append(codes[order][1:] != codes[order][:-1], True)
    return rows.take(pa.array(np.sort(order[last])))
