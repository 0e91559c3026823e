"""The soak itself works: it sees growth where there is some and none in noise. `make soak` takes half an hour."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from attrs import evolve

from crash.oracle import Verdict
from crash.soak import Look, Soaked, slope, soak


def looks(grow: float, seconds: int = 1800) -> list[Look]:
    """Memory that grows by so many MB an hour, beneath noise of several MB with a few high peaks."""
    luck = random.Random(1)
    noise = [luck.gauss(0, 2) + (50 if luck.random() < 0.05 else 0) for _ in range(0, seconds, 2)]
    first = Look(0.0, 200.0, 19, 30, 0.5, 0.0, 4.0)
    return [evolve(first, at=float(at), memory=200 + grow * at / 3600 + noise[at // 2]) for at in range(0, seconds, 2)]


def test_a_slope_is_seen_in_noise() -> None:
    assert abs(slope([(look.at, look.memory) for look in looks(0)])) < 2
    assert slope([(look.at, look.memory) for look in looks(20)]) == pytest.approx(20, abs=2)


def test_growth_is_told() -> None:
    good, bad = Verdict(100, 10), Verdict(100, 10)
    bad.faults["raw", "lost"] += 1
    assert "memory grows" in Soaked(looks(20), 3.0, good).faults()[0]
    creeping = [evolve(look, memory=200 + 1.2 * look.at / 3600) for look in looks(0)]
    assert "memory grows by 1.20 MB an hour" in Soaked(creeping, 3.0, good).faults()[0]
    assert Soaked(creeping, 3.0, good, with_delta=True).faults() == []
    steady = [evolve(look, memory=200.0) for look in looks(0)]
    assert Soaked(steady, 3.0, good).faults() == []
    leaking = [evolve(look, handles=19 + round(look.at / 300)) for look in steady]
    assert Soaked(leaking, 3.0, good).faults() == ["file descriptors grow from 21 to 25"]
    assert Soaked([evolve(look, state=17.0) for look in steady], 3.0, good).faults() == ["the state takes 17.0 MB"]
    assert len(Soaked(steady, 120.0, bad).faults()) == 2


@pytest.mark.slow
def test_a_few_seconds_of_it(tmp_path: Path) -> None:
    soaked = soak(tmp_path, 8.0, say=False)
    assert soaked.faults() == []
    assert soaked.verdict.rows > 1000
    assert len(soaked.looks) >= 4
