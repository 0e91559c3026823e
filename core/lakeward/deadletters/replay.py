"""Dead letters that go through the pipeline again, each from where it left it.

A letter of the source enters at the source; one of a transform enters that transform, because the other branches have its row already;
one of a sink becomes a parcel for that sink alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
from attrs import frozen

from lakeward.components import ROW, Rereading
from lakeward.deadletters.box import Closing, DeadLetter, Letters
from lakeward.deadletters.letters import all_letters, rows_again
from lakeward.errors import LakewardError
from lakeward.pipeline import SOURCE, BrokenContract, Outcome, Pipeline
from lakeward.reconcile import NO_ROWS, Fates, fates

AT_ONCE = 10_000  # letters
MOST_ROWS = 100_000  # in one batch
Letter = Mapping[str, Any]


@frozen(eq=False)
class Replay:
    """Letters of one stage and one input of the source, sent again: what to record about them, in one transaction."""

    origin: str
    epoch: int
    outcome: Outcome
    dead: Sequence[DeadLetter]
    """New ones; those that are rejected again where they were stay the letters that they are."""
    closing: Closing
    counted: Fates = NO_ROWS
    """What it changes: the rows were counted as read and dead before."""
    totals: Mapping[tuple[str, str], int] = {}
    """More to add: rows that were refused by a sink are not spooled a second time."""


class CannotReplayError(Exception):
    """Why letters cannot be replayed in this pipeline; nothing of them was sent."""


def replays(pipeline: Pipeline, kept: Letters, sinks: Mapping[str, str]) -> Iterator[Replay]:
    """All letters that are marked, in groups; each is to be recorded before the next is asked for.

    `sinks` has the pipeline's names of sinks by those in the state. A letter that cannot be replayed is open again, and says why.
    Raises BrokenContract when a transform does not take the rows as it should.
    """
    while marked := kept.find(AT_ONCE, "status = 'replay'"):
        for _, group in groupby(sorted(marked, key=_kind), _kind):
            chosen = sorted(group, key=lambda letter: (letter["row_low"] or 0, letter["id"]))
            again = _again if chosen[0]["row_high"] is None else _read_again
            try:
                yield from again(pipeline, kept, sinks, chosen)
            except Exception as error:
                kept.reopen({letter["id"]: str(error) for letter in chosen})
                if not isinstance(error, CannotReplayError):  # transforms may have changed what they remember
                    raise BrokenContract(f"dead letters of {chosen[0]['stage']} could not be replayed: {error}") from error


def _kind(letter: Letter) -> tuple[str, str, int, bool]:
    keyless = letter["row_low"] is None and letter["stage"].startswith("sink ")  # then its origin is a place in a parcel
    return letter["stage"], "" if keyless else letter["origin"], letter["epoch"], letter["row_high"] is not None


def _again(pipeline: Pipeline, kept: Letters, sinks: Mapping[str, str], chosen: Sequence[Letter]) -> Iterator[Replay]:
    """Rows out of their letters, as one batch."""
    stage, origin, epoch, _ = _kind(chosen[0])
    own_name = stage.removeprefix("sink ")
    sink = sinks.get(own_name) if own_name != stage else None
    rows, fitting, unfit = rows_again(chosen, _schema(pipeline, stage, sink))
    if unfit:
        kept.reopen(unfit)
    if not fitting:
        return
    if sink:
        less = {(kind, own_name): -len(fitting) for kind in ("refused", "spooled")}
        yield Replay(origin, epoch, Outcome(shares={sink: rows}), [], Closing([letter["id"] for letter in fitting]), totals=less)
        return
    ids = {letter["row_low"]: letter["id"] for letter in fitting}
    outcome = pipeline.push(rows, stage)
    found = all_letters(outcome.dead, origin, epoch)
    again = {ids[new.row]: f"{new.reason}: {new.detail}" for new in found if new.stage == stage and new.row in ids}
    replayed = [letter["id"] for letter in fitting if letter["id"] not in again]
    new = [letter for letter in found if letter.stage != stage or letter.row not in ids]
    yield Replay(origin, epoch, outcome, new, Closing(replayed, again), _change(kept, rows, outcome, origin, epoch, replayed))


def _change(kept: Letters, rows: pa.RecordBatch, outcome: Outcome, origin: str, epoch: int, replayed: Sequence[int]) -> Fates:
    """Of the rows that no other letter keeps dead."""
    if ROW not in rows.schema.names:
        return NO_ROWS
    import pyarrow.compute as pc  # 25 ms at the start of every run, few of which replay

    dead = pa.array(sorted(kept.dead_rows(origin, epoch, replayed)), pa.int64())
    counted = fates(rows.filter(pc.invert(pc.is_in(rows.column(ROW), value_set=dead))), 0, outcome)
    return Fates(0, counted.delivered, counted.filtered, -counted.delivered - counted.filtered - counted.held, counted.held)


def _schema(pipeline: Pipeline, stage: str, sink: str | None) -> pa.Schema:
    """Of the rows where the letters enter."""
    inputs = {step.name: step.inputs[0] for step in pipeline.steps} | {SOURCE[0]: SOURCE}
    if sink:
        schema = pipeline.schemas[pipeline.links[sink][0]]
        keyless = ROW in schema.names and not pipeline.sinks[sink].encoding.row_key
        return schema.remove(schema.get_field_index(ROW)) if keyless else schema
    if stage not in inputs:
        raise CannotReplayError(f"no {stage!r} in this graph; put it back, or select the graph that has it")
    return pipeline.schemas[inputs[stage]]


def _read_again(pipeline: Pipeline, kept: Letters, sinks: Mapping[str, str], chosen: Sequence[Letter]) -> Iterator[Replay]:
    """Ranges that could not be read, read from the source once more."""
    source = pipeline.source
    if not isinstance(source, Rereading):
        raise CannotReplayError("the rows were never read, and this source cannot read a part of its input again")
    for letter in chosen:
        stage, origin, epoch, *_ = _kind(letter)
        low, high = letter["row_low"], letter["row_high"]
        if kept.outlived(origin, letter["first_seen"]):
            raise CannotReplayError(
                "the input was replaced or rewound since, so other rows may have these keys; if some are missing in the sinks, "
                "read them with `lakeward backfill`, then discard this letter"
            )
        try:
            found = list(source.read(source.reread(low, high, epoch, origin), min(high - low + 1, MOST_ROWS)))
        except LakewardError as error:
            raise CannotReplayError(str(error)) from error
        rows = pa.Table.from_batches([batch.rows for batch in found], pipeline.schemas[SOURCE]).combine_chunks()
        bad = all_letters([(stage, batch.rejected) for batch in found if batch.rejected is not None], origin, epoch)
        if not rows.num_rows:
            raise CannotReplayError(f"not one of the rows can be read: {bad[0].detail if bad else 'they are not there any more'}")
        whole = rows.to_batches()[0]
        outcome = pipeline.push(whole)
        dead = bad + all_letters(outcome.dead, origin, epoch)
        # the range was counted as one row
        yield Replay(origin, epoch, outcome, dead, Closing([letter["id"]]), fates(whole, len(bad), outcome) + Fates(-1, 0, 0, -1))
