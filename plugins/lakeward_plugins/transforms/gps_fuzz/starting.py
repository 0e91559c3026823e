"""What a person must hear about the options before the first row: what they cannot mean, and what they cost."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

from lakeward import ROW, OptionError
from lakeward_plugins.transforms.gps_fuzz.columns import SCRUBBED

Options = Any
"""A GpsFuzz, which imports this file."""
log = logging.getLogger("lakeward.gps_fuzz")
NOISY = ("uniform_disc", "planar_laplace", "gaussian")
LN_2 = math.log(2)
COARSE = 4  # decimals; the fourth is ten metres


def scale(options: Options) -> float:
    """The radius of the disc, 1/epsilon, or sigma; metres."""
    if options.mode == "uniform_disc":
        return float(options.radius_meters)
    if options.mode == "gaussian":
        return float(options.sigma_m)
    if options.epsilon:
        return float(1 / options.epsilon)
    if options.protection_radius_m:
        return float(options.protection_radius_m / (options.privacy_level or LN_2))
    raise OptionError("epsilon", "planar_laplace needs epsilon, or protection_radius_m (with privacy_level, ln 2 if left out)")


def refuse_contradictions(options: Options) -> None:
    """Raises OptionError."""
    base = [name for name in ("base_lat", "base_lon") if getattr(options, name) is not None]
    if len(base) == 1 or (options.base_use == "anchor" and not base):
        raise OptionError(base[0] if base else "base_use", "a base needs both base_lat and base_lon")
    if options.mode == "grid" and options.grid.system == "metric" and options.cell_m is None:
        raise OptionError("cell_m", "a metric grid needs the size of its cells; give `cell_m`")
    for option in ("scrub_fields", "keep_fields"):
        if ROW in getattr(options, option):
            raise OptionError(option, f"{ROW} is the key of the rows; it cannot be named here")
    both = sorted({*options.scrub_fields} & {*options.keep_fields})
    if both and tuple(options.scrub_fields) != SCRUBBED:  # what is scrubbed by default may be kept
        raise OptionError("keep_fields", f"{', '.join(both)} is in scrub_fields, too; name it in one of them")


def warn(options: Options) -> None:
    """Tell what hides less than somebody may think; and with what the rest was made."""
    for message in _warnings(options):
        log.warning("gps_fuzz: %s", message)
    for message in _facts(options):
        log.info("gps_fuzz: %s", message)


def _warnings(options: Options) -> Iterator[str]:
    if not options.enabled:
        yield "switched off (enabled: false): TRUE POSITIONS go on, and nothing is scrubbed"
        return
    if options.mode != "planar_laplace" and (options.epsilon or options.protection_radius_m):
        unused = "epsilon" if options.epsilon else "protection_radius_m"
        yield f"{unused} does nothing in mode {options.mode}; did you mean `mode: planar_laplace`?"
    if options.mode == "planar_laplace" and options.epsilon and options.protection_radius_m:
        other = (options.privacy_level or LN_2) / options.protection_radius_m
        if not math.isclose(other, options.epsilon, rel_tol=0.01):
            yield f"epsilon {options.epsilon:g} is used; privacy_level / protection_radius_m would be {other:.4g}: leave one of them out"
    if options.mode == "round" and options.out_decimals > COARSE:
        metres = 111_320 * 10.0**-options.out_decimals
        yield f"mode round with out_decimals {options.out_decimals} moves positions by less than {metres:.2g} m, which hides nobody"
    if options.mode in NOISY and options.cell_m is None:
        yield "without cell_m a device has one shift for ever: the shape of its way is seen, and one true position tells all others"
    if options.max_radius_m is not None and options.mode not in NOISY:
        yield f"max_radius_m does nothing in mode {options.mode}"


def _facts(options: Options) -> Iterator[str]:
    if options.enabled and options.key_id and options.mode in NOISY:
        yield f"key {options.key_id}"
    if options.mode != "planar_laplace" or not options.enabled:
        return
    epsilon = 1 / scale(options)
    if options.bucket_s is not None:
        yield f"each bucket of {options.bucket_s:g} s is a release of its own: n of them cost n times {epsilon:g} per metre"
    if options.max_radius_m is not None:
        reach = epsilon * options.max_radius_m
        yield f"max_radius_m: the guarantee of epsilon holds but for delta = {(1 + reach) * math.exp(-reach):.2g}"
