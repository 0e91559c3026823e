"""Rows that replace older ones: windows and alerts that are given out again under the same id with a greater revision.

One rule for every sink: of rows with the same key the one with the greatest revision stays, of equal revisions the one that came first,
within a parcel as between parcels. A row that has none, from before there was such a column, is older than all. So nothing that is sent
again undoes what is newer: a backfill, a dead letter that is replayed, a statement that was given up and is carried out late. "The last one
that comes wins" would be undone by each of them, so nothing is upserted without a revision: where rows have none, their time is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lakeward.errors import OptionError, Refused, Rejected


def require_revision(keys: Sequence[str], revision: str) -> None:
    """The options go together; OptionError when one is missing."""
    if keys and not revision:
        raise OptionError("revision", "goes with `upsert_by`: the column that says which of two rows is newer, such as revision or a time")
    if revision and not keys:
        raise OptionError("revision", "goes with `upsert_by`, the columns that name a row")


def newest(rows: pa.RecordBatch, keys: Sequence[str], revision: str) -> pa.RecordBatch:
    """Of the rows of each key the one with the greatest revision, of equal ones the first; in the order in which they came.

    Raises Refused for a column that is not there or cannot be a key, Rejected for rows without a key.
    """
    # with pyarrow.compute, for which only those who upsert pay
    from lakeward.grouping import KEY_TYPES, group_codes, plain_types, undecodable

    types = plain_types(rows.schema)
    for name in (*keys, revision):
        if name not in types:
            raise Refused(f"upsert_by: the rows have no column {name!r}; correct `upsert_by` and `revision`")
    for name in keys:
        if not any(fits(types[name]) for fits in KEY_TYPES):
            raise Refused(f"upsert_by: column {name!r} is {types[name]}; keys are text, whole numbers or booleans")
    missing = np.zeros(rows.num_rows, np.bool_)
    for name in (*keys, revision):
        missing |= rows.column(name).is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    if missing.any():
        raise Rejected("upsert_by: the row has no key, or no revision", np.flatnonzero(missing).tolist())
    try:
        codes, _ = group_codes(rows, pa.schema([(name, types[name]) for name in keys]))
        ranks = np.unique(rows.column(revision).to_numpy(zero_copy_only=False), return_inverse=True)[1]
    except (UnicodeDecodeError, pa.ArrowException):  # numpy's objects are made by Arrow, which says it in its own way
        raise Rejected(
            "upsert_by: the key or the revision is text that is not UTF-8", undecodable(rows, [*keys, revision]).tolist()
        ) from None
    order = np.lexsort((-np.arange(len(codes)), ranks, codes))
    last = np.append(codes[order][1:] != codes[order][:-1], True)
    return rows.take(pa.array(np.sort(order[last])))
