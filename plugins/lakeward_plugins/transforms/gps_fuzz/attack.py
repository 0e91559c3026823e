"""What averaging finds out. The attacker knows the true positions only to be told how far off he is."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from lakeward_plugins.transforms.gps_fuzz.cells import Floats, Ints


@frozen
class Recovered:
    """How near an attacker came to the mean of the true positions, over all devices; metres."""

    reports: int
    """How many of each device he averaged; 0 where each distinct output counts once."""
    devices: int
    """That had so many."""
    rms: float
    median: float
    fresh: float
    """The RMS if each report had noise of its own."""


def by_averaging(device: Ints, east: Floats, north: Floats) -> list[Recovered]:
    """The mean of the first 1, 10, 100, … reports of each device. East and north are metres from true to released position."""
    order = np.argsort(device, kind="stable")
    starts, counts = _groups(device[order])
    sums = [np.concatenate(([0.0], np.cumsum(part[order]))) for part in (east, north)]
    spread, found, reports = float(np.mean(east**2 + north**2)) if len(east) else 0.0, [], 1
    while (enough := counts >= reports).any():
        begin = starts[enough]
        errors = np.hypot(*((part[begin + reports] - part[begin]) / reports for part in sums))
        found.append(_recovered(reports, errors, np.sqrt(spread / reports)))
        reports *= 10
    return found


def by_cells(device: Ints, output: Ints, east: Floats, north: Floats) -> Recovered:
    """The mean of the distinct outputs of each device, each counted once: what many reports from one cell do not outweigh.

    `output` is a number for each released position. An output is compared with the mean of the true positions behind it.
    """
    pairs, which, rows = np.unique(device * (int(output.max(initial=0)) + 1) + output, return_inverse=True, return_counts=True)
    owner = np.zeros(len(pairs), np.int64)
    owner[which] = device
    _, group, outputs = np.unique(owner, return_inverse=True, return_counts=True)
    means = [np.bincount(group, np.bincount(which, part) / rows) / outputs for part in (east, north)]
    spread = float(np.mean(east**2 + north**2)) if len(east) else 0.0
    return _recovered(0, np.hypot(*means), np.sqrt(spread * float(np.mean(1 / outputs))))


def outputs_of_each(device: Ints, output: Ints) -> Ints:
    """How many distinct released positions each device has."""
    pairs = np.unique(device * (int(output.max(initial=0)) + 1) + output)
    return np.unique(pairs // (int(output.max(initial=0)) + 1), return_counts=True)[1]


def _groups(in_order: Ints) -> tuple[Ints, Ints]:
    _, starts, counts = np.unique(in_order, return_index=True, return_counts=True)
    return starts, counts


def _recovered(reports: int, errors: Floats, fresh: float) -> Recovered:
    return Recovered(reports, len(errors), float(np.sqrt(np.mean(errors**2))), float(np.median(errors)), float(fresh))
