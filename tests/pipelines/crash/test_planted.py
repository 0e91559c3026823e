"""Seven planted bugs: the harness must see each, in each sink, or it proves nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from crash import pipeline
from crash.elsewhere import Servers
from crash.oracle import judge
from crash.planted import BUGS
from crash.program import Broken, Nursery, ended

SEEN = [  # the bug, where to kill, and what the oracle must say of which sink
    ("checkpoint_before_spool", "inside_bug:2", ("raw", "lost")),
    ("window_state_apart", "inside_bug:2", ("sums", "wrong")),
    ("settle_before_deliver", "inside_bug:2", ("raw", "lost")),
    ("no_rename", "inside_bug:3", ("raw", "unreadable")),
    *(("another_token", "before_settle:1", (sink, "twice")) for sink in ("raw", "table", "archive", "local", "duck")),
    ("any_sink_is_enough", "after_drop:1", ("raw", "lost")),
    ("random_document_id", "inside_bug:30", ("documents", "twice")),
]


def test_all_bugs_are_in_the_list() -> None:
    assert {bug for bug, _, _ in SEEN} == BUGS.keys()
    assert len(BUGS) == 7


@pytest.mark.parametrize(("bug", "point", "fault"), SEEN, ids=[f"{bug} {sink}" for bug, _, (sink, _) in SEEN])
def test_a_planted_bug_is_seen(nursery: Nursery, tmp_path: Path, bug: str, point: str, fault: tuple[str, str]) -> None:
    sinks = ("raw", "sums", "table") if bug == "any_sink_is_enough" else (fault[0],)
    pipeline.make(tmp_path, sinks)
    pipeline.grow(tmp_path, 350)
    once, planted = ("run", "pipeline.yaml", "--once"), f"plant:{bug}"
    ended(tmp_path, nursery.start(tmp_path, once, [planted, f"die:{point}"]), -signal.SIGKILL)
    pipeline.grow(tmp_path, 150)
    ended(tmp_path, nursery.start(tmp_path, [*once, "--finish"], [planted]), 0, 1)
    verdict = judge(tmp_path, sinks)
    if bug == "any_sink_is_enough":  # which sink is first is chance
        assert verdict.total("lost") > 0, verdict
    else:
        assert verdict.faults[fault] > 0, verdict


@pytest.mark.parametrize("sink", ["bucket", "far_table", "copied", "inserted", "items"])
def test_a_planted_bug_is_seen_elsewhere(nursery: Nursery, servers: Servers, tmp_path: Path, sink: str) -> None:
    pipeline.make(tmp_path, (sink,), rows=20)
    pipeline.grow(tmp_path, 60)
    once, bug, place = ("run", "pipeline.yaml", "--once"), "plant:another_token", servers.place((sink,))
    known = place.known(place.address)
    ended(tmp_path, nursery.start(tmp_path, once, [bug, "die:before_settle:1"], **known), -signal.SIGKILL)
    ended(tmp_path, nursery.start(tmp_path, once, [bug], **known))
    assert judge(tmp_path, (sink,), place).faults == {(sink, "twice"): 20}


def test_a_run_that_ends_as_it_never_should_is_seen(nursery: Nursery, tmp_path: Path) -> None:
    pipeline.make(tmp_path, ("raw",))
    (tmp_path / "lake").write_text("in the way")
    pipeline.grow(tmp_path, 10)
    with pytest.raises(Broken, match="ended with 1"):
        ended(tmp_path, nursery.start(tmp_path, ("run", "pipeline.yaml", "--once")))
