"""What transforms remember between batches and runs, by the names under which the state keeps it."""

from __future__ import annotations

from lakeward.components import Stateful
from lakeward.errors import LakewardError
from lakeward.pipeline import Pipeline
from lakeward.state import State


def stateful(pipeline: Pipeline) -> dict[str, Stateful]:
    """The transforms that remember something, by the name under which the state has it."""
    return {f"{pipeline.graph}.{step.name}": step.transform for step in pipeline.steps if isinstance(step.transform, Stateful)}


def restore(pipeline: Pipeline, state: State) -> None:
    """Let each transform go on from what it remembered at the checkpoint."""
    for name, transform in stateful(pipeline).items():
        remembered = state.transform_state(name)
        try:
            if remembered is not None:
                transform.restore(remembered)
        except Exception as error:
            raise LakewardError(
                f"transform {name} cannot go on from what it remembered: {error}; "
                "undo what changed in its options, or start anew with another --state-dir (every row is then sent again)"
            ) from error
