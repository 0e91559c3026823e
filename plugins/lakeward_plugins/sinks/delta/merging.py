"""Rows that replace older ones, in one commit with the note."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, WriterProperties

from lakeward_plugins.sinks.delta.place import NO_HOOKS


def merge(
    rows: pa.RecordBatch, table: DeltaTable, keys: Sequence[str], revision: str, note: CommitProperties, properties: WriterProperties
) -> None:
    """One commit: rows whose key is new are added, others replace the older revision; raises CommitFailedError when others were first."""
    same = " AND ".join(f"t.{_quoted(name)} = s.{_quoted(name)}" for name in keys)
    newer = f"t.{_quoted(revision)} IS NULL OR s.{_quoted(revision)} > t.{_quoted(revision)}"
    source = pa.Table.from_batches([rows])
    task = table.merge(source, same, "s", "t", writer_properties=properties, commit_properties=note, post_commithook_properties=NO_HOOKS)
    task.when_matched_update_all(predicate=newer).when_not_matched_insert_all().execute()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
