"""How far released positions should be from the true ones."""

from __future__ import annotations

import math

import numpy as np
from attrs import frozen

from lakeward_plugins.transforms.gps_fuzz.cells import Floats
from lakeward_plugins.transforms.gps_fuzz.transform import GpsFuzz

POINTS = 400_000
SIGMAS = 2.0  # of chance, on either side: 19 times in 20


@frozen
class Expected:
    """A quantile of the displacement, and between what chance moves it; metres."""

    metres: float
    low: float
    high: float


def displacements(transform: GpsFuzz) -> Floats | None:
    """Many, in ascending order, spread as they should be; None where they depend on the places: of a base, or of other grids.

    The distances of the noise are at even steps of their distribution. Where cells are released, each starts at a random place of
    a square cell: a true position may be anywhere in it. The random numbers are always the same.
    """
    if transform.base_lat is not None and transform.base_use == "anchor":
        return None
    chance = np.random.default_rng(1)
    inside = np.zeros((2, POINTS))
    if transform.cell_m is not None and (transform.mode == "grid" or transform.release == "cell"):
        inside = chance.uniform(-transform.cell_m / 2, transform.cell_m / 2, (2, POINTS))
    if transform.noise:
        distance = transform.noise.distances((np.arange(POINTS) + 0.5) / POINTS)
        azimuth = chance.uniform(0, 2 * np.pi, POINTS)
        return np.sort(np.hypot(inside[0] + distance * np.sin(azimuth), inside[1] + distance * np.cos(azimuth)))
    return np.sort(np.hypot(*inside)) if transform.mode == "grid" and transform.grid.system == "metric" else None


def expected(ordered: Floats, share: float, draws: float) -> Expected:
    """The displacement that a share of all is below, and its range at so many draws of noise (as many as weigh the same)."""
    chance = SIGMAS * math.sqrt(share * (1 - share) / max(draws, 1.0))
    metres, low, high = (float(np.quantile(ordered, min(max(at, 0.0), 1.0))) for at in (share, share - chance, share + chance))
    return Expected(metres, low, high)
