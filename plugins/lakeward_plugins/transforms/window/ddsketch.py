"""Values in bins of a relative width, from which quantiles are known within one percent of the value.

The mapping of DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
VLDB 2019): bin i holds what is in (g^(i-1), g^i], with g = (1 + a) / (1 - a), and stands for 2 g^i / (g + 1), at most a away from all
in it. Bins are never joined, so the same values give the same bins in whatever order and parts they came.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from lakeward.grouping import Array

ACCURACY = 0.01
NAME = "ddsketch(0.01)"
BASE = (1 + ACCURACY) / (1 - ACCURACY)
LEAST, GREATEST = 2.3e-308, 1.7e308  # what is nearer to zero counts as zero


@cache
def _edges() -> Array:
    """Upper ends of the bins of positive numbers. A table, as a logarithm may differ in its last digit from one machine to another."""
    low, high = (int(np.log(size) / np.log(BASE)) for size in (LEAST, GREATEST))
    return np.asarray(np.exp(np.arange(low, high + 1) * np.log(BASE)))


def bins(values: Array) -> Array:
    """The bin of each value: a whole number that grows with the value; 0 is zero."""
    sizes = np.abs(values)
    number = np.searchsorted(_edges(), sizes, "left") + 1.0
    return np.where(sizes < LEAST, 0.0, np.copysign(number, values))


def values(numbers: Array) -> Array:
    """What bins stand for."""
    place = np.minimum(np.abs(numbers).astype(np.int64), len(_edges())) - 1
    return np.where(numbers == 0, 0.0, np.copysign(_edges()[place] * (2 / (BASE + 1)), numbers))
