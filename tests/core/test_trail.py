from __future__ import annotations

import json
import os

import pytest

from lakeward.errors import Refused, Retry
from lakeward.trail import ANY, Trail

OLD, NEW = {"path": "old"}, {"path": "new"}


def after(folder, *steps):
    """A process of which the parcels are `a`, `b`, and so on; then the next one, with other options."""
    trail = Trail(folder / "sinks" / "s" / "kind.json")
    for step in steps:
        if step in ("refused", "end"):
            getattr(trail, step)()
        else:
            assert trail.elsewhere(step, OLD) is None
            trail.begin(step, OLD)
    return Trail(trail.file)


@pytest.mark.parametrize(
    ("steps", "doubted"),
    [
        ("a", "abc"),  # killed: nobody knows how far it came
        ("ab", "abc"),
        (["a", "b", "end"], "b"),  # b was the last, and `a` was settled before it
        (["a", "b", "refused"], ""),
        (["a", "b", "refused", "end"], ""),  # nothing of b was written for sure
        (["a", "b", "b", "refused", "end"], "b"),  # but the first attempt may have
        (["a", "refused", "a", "refused", "end"], ""),
        (["a", "end", "b"], "abc"),
    ],
)
def test_only_a_parcel_that_may_have_been_begun_is_looked_for_at_the_old_place(tmp_path, steps, doubted):
    for token in "abc":
        trail = after(tmp_path / token, *steps)
        assert trail.elsewhere(token, OLD) is None
        assert trail.elsewhere(token, NEW) == (OLD if token in doubted else None)


def test_a_refusal_takes_no_doubt_away_that_an_earlier_process_left(tmp_path):
    trail = after(tmp_path, "a")  # killed
    trail.begin("a", OLD)
    trail.refused()
    trail.end()
    assert Trail(trail.file).elsewhere("a", NEW) == OLD


def test_the_old_place_is_kept_until_something_is_begun_at_the_new_one(tmp_path):
    trail = after(tmp_path, "a")
    trail.end()
    assert Trail(trail.file).elsewhere("a", NEW) == OLD
    trail.begin("b", NEW)
    assert trail.elsewhere("b", NEW) is None
    assert Trail(trail.file).elsewhere("b", OLD) == NEW


def test_it_is_written_once_by_a_process_and_read_by_anybody(tmp_path):
    trail = after(tmp_path, "a", "end")
    trail.begin("b", OLD)
    assert json.loads(trail.file.read_text()) == {"place": OLD, "parcel": ANY, "known": {}}
    before = trail.file.stat().st_ino
    for token in "bcd":
        trail.begin(token, OLD)
        trail.learn(conditional=None)
    assert trail.file.stat().st_ino == before
    trail.end()
    assert json.loads(trail.file.read_text())["parcel"] == "d"


def test_what_a_killed_process_wrote_but_may_not_have_synced_is_synced_once(tmp_path, monkeypatch):
    trail = after(tmp_path, "a")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    for token in "aab":
        trail.begin(token, OLD)
    assert synced == [trail.file.parent.stat().st_ino]


def test_what_was_learnt_is_of_one_place(tmp_path):
    trail = after(tmp_path, "a")
    trail.learn(conditional=True)  # not yet: this process writes nowhere
    assert trail.known("conditional", OLD) is None
    trail.begin("a", OLD)
    trail.learn(conditional=False)
    assert Trail(trail.file).known("conditional", OLD) is False
    assert Trail(trail.file).known("conditional", NEW) is None
    trail.begin("b", NEW)
    assert Trail(trail.file).known("conditional", NEW) is None


def test_without_a_state_nothing_is_remembered():
    trail = Trail()
    trail.begin("a", OLD)
    trail.end()
    assert Trail().elsewhere("a", NEW) is None


def test_what_cannot_be_read_or_seen_is_told_with_what_to_do(tmp_path):
    trail = after(tmp_path, "a")
    told = r"whether a is there in part under the old ones cannot be seen: no answer; if you know that it is not, remove .*kind\.json"
    for kind in (Retry, Refused):
        with pytest.raises(kind, match=told):
            raise trail.unseen("a", kind("no answer"))
    assert trail.elsewhere("a", NEW) == OLD
    trail.file.unlink()
    assert trail.elsewhere("a", NEW) is None, "also while the process goes on"
    trail.file.write_text("{")
    with pytest.raises(Refused, match=r"kind\.json is damaged .*; if the options of this sink did not change, remove it"):
        Trail(trail.file).elsewhere("a", NEW)
