"""A direction and a distance from a key: the mechanism itself.

Fresh noise for each reading would not hide a fixed sensor, because it averages out: of 10,000 readings the mean is under a metre off.
So nothing is drawn; the noise is a function of a secret key, and a device in a place gets the same in every batch, process and run:

    digest   HMAC-SHA256(key, "lakeward/gps/v1" NUL mode NUL device NUL cell NUL bucket)
    u1, u2   the first two big-endian 64-bit words of the digest, the upper 53 bits of each over 2**53
    radius   the distance that a share u1 of all distances is below; the direction is 360 degrees * u2, clockwise from north
    output   the point at that distance and direction from the origin, along the geodesic on the WGS84 ellipsoid

`device` is its column as text, `cell` is row:column, `bucket` is floor(seconds since 1970 / bucket_s); what there is not is empty.
The origin is the centre of the cell (release: cell) or the true position (release: offset, or without cells).

planar_laplace is the mechanism of geo-indistinguishability (Andrés et al., CCS 2013, arXiv:1212.1984), whose guarantee is for each
independent release; uniform_disc and gaussian have none of that kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward import OptionError
from lakeward.secrets import Secret, SecretReference
from lakeward_plugins.transforms.gps_fuzz.cells import WGS84, Floats, Ints, Metric

BLOCK = 64  # bytes of SHA-256
LARGEST = 2**62


@frozen(eq=False)
class Noise:
    """How a mode moves positions."""

    uniforms: Uniforms
    law: Callable[[Floats], Floats]
    """The inverse distribution of distances, for a scale of 1."""
    scale: float
    """The radius of the disc, 1/epsilon, or sigma; metres."""
    limit: float
    """No distance is greater; metres."""
    cells: Metric | None
    centred: bool
    """Start from the centre of the cell, not from the true position."""

    def distances(self, u1: Floats) -> Floats:
        """Metres."""
        return np.asarray(np.minimum(self.scale * self.law(u1), self.limit))

    def moved(self, lat: Floats, lon: Floats, names: pa.Array[Any], device: Ints, buckets: Ints | None) -> tuple[Floats, Floats]:
        """Positions of rows, moved. `names` are devices as bytes, `device` the number of each row's among them.

        The work is done once for each distinct device, cell and bucket.
        """
        cells = self.cells.numbers(lat, lon) if self.cells else None
        which, rows = distinct([part for part in (device, cells, buckets) if part is not None])
        number = None if cells is None else cells[rows]
        bucket = _empty(len(rows)) if buckets is None else _digits(buckets[rows])
        own: pa.Array[Any] = pa.array(device[rows])
        messages = _joined([names.take(own), self._cell_texts(number, len(rows)), bucket], b"\0")
        u1, u2 = self.uniforms.of(messages)
        azimuth, distance = 360 * u2, self.distances(u1)
        if number is not None and self.centred and self.cells:
            from_lat, from_lon = self.cells.centres(number)
            to_lon, to_lat = WGS84.fwd(from_lon, from_lat, azimuth, distance, return_back_azimuth=False)[:2]
            return to_lat[which], to_lon[which]
        to_lon, to_lat = WGS84.fwd(lon, lat, azimuth[which], distance[which], return_back_azimuth=False)[:2]
        return to_lat, to_lon

    def _cell_texts(self, numbers: Ints | None, count: int) -> Any:
        if numbers is None or self.cells is None:
            return _empty(count)
        return _joined([_digits(part) for part in self.cells.places(numbers)], b":")


class Uniforms:
    """HMAC-SHA256 (RFC 2104) of many short messages under one key.

    The standard library's own takes longer to make each object than to hash; so both halves are started once here and copied. What was
    asked last is kept: most devices are in the cell where they were a batch ago.
    """

    def __init__(self, key: bytes, prefix: bytes) -> None:
        padded = (sha256(key).digest() if len(key) > BLOCK else key).ljust(BLOCK, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in padded) + prefix)
        self._outer = sha256(bytes(byte ^ 0x5C for byte in padded))
        self._last = _empty(0), np.zeros((0, 2))

    def of(self, messages: pa.Array[Any]) -> tuple[Floats, Floats]:
        """u1 and u2 of each message, which are large_binary."""
        known, known_pairs = self._last
        place = pc.index_in(messages, known)
        new = np.asarray(place.is_null())
        pairs = np.empty((len(messages), 2))
        pairs[new] = self._hashed(messages.filter(pa.array(new)).to_pylist())
        pairs[~new] = known_pairs[np.asarray(place.drop_null())]
        self._last = messages, pairs
        return pairs[:, 0], pairs[:, 1]

    def _hashed(self, messages: list[Any]) -> Floats:
        start, end, digests = self._inner.copy, self._outer.copy, []
        for message in messages:
            inner, outer = start(), end()
            inner.update(message)
            outer.update(inner.digest())
            digests.append(outer.digest())
        words = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 4)[:, :2]
        return (words >> 11) * 2.0**-53


def uniforms(key: Secret | SecretReference, mode: str) -> Uniforms:
    """Under a key of the options."""
    return Uniforms(_key_bytes(key), b"lakeward/gps/v1\0%b\0" % mode.encode())


def _key_bytes(key: Secret | SecretReference) -> bytes:
    if isinstance(key, SecretReference):  # nobody gave one, and there is none where it is looked for
        raise OptionError("key", f"required, but missing: {key} is not set; `openssl rand -hex 32` makes one")
    if not isinstance(key, Secret):
        raise OptionError("key", "is a secret; refer to it as ${env:NAME} or ${file:/path}")
    text = key.reveal()
    found = bytes.fromhex(text) if re.fullmatch(r"(?:[0-9a-fA-F]{2}){16,}", text) else text.encode()
    if len(found) < 16:  # it could be found by trying
        raise OptionError("key", f"has {len(found)} bytes, but needs at least 16; `openssl rand -hex 32` makes one")
    return found


# -- distances, for a scale of 1 ---------------------------------------------------------------------------------------


def uniform_disc(u: Floats) -> Floats:
    """The inverse of F(r) = r², the distances of points spread evenly over a disc of radius 1."""
    return np.sqrt(u)


def planar_laplace(u: Floats) -> Floats:
    """The inverse of F(r) = 1 - (1 + r) e^-r, which is -1 - W(-1, (u - 1)/e) with Lambert's W, by Halley's method.

    Solves r - ln(1 + r) = -ln(1 - u), which keeps its digits where u is small. The start is Chatzigeorgiou's bound (IEEE Communications
    Letters 17(8), 2013). The steps are fixed, not until it converges, so that no row's result depends on the others in its batch.
    """
    goal = np.maximum(-np.log1p(-u), 2.0**-60)  # at 0 the steps would divide by zero; this is far less than a micrometre
    r: Floats = np.sqrt(2 * goal) + goal * (2 / 3)
    for _ in range(4):
        over = r - np.log1p(r) - goal
        slope = r / (1 + r)
        r -= 2 * over * slope / (2 * slope**2 - over / (1 + r) ** 2)
    return r


def gaussian(u: Floats) -> Floats:
    """The inverse of F(r) = 1 - e^(-r²/2): Rayleigh's, the distances when both axes are normal with a standard deviation of 1."""
    return np.asarray(np.sqrt(-2 * np.log1p(-u)))


LAWS: dict[str, Callable[[Floats], Floats]] = {"uniform_disc": uniform_disc, "planar_laplace": planar_laplace, "gaussian": gaussian}
"""By mode."""


# -- distinct rows -----------------------------------------------------------------------------------------------------


def distinct(parts: list[Ints]) -> tuple[Ints, Ints]:
    """For each row the number of its combination of values, and for each combination a row that has it."""
    count = len(parts[0])
    if not count:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    key, span = np.zeros(count, np.int64), 1
    for part in parts:
        low, high = int(part.min()), int(part.max())
        part, width = part - low, high - low + 1
        if span * width >= LARGEST:  # numbers that are close together have room beside others
            (key, span), (part, width) = _numbered(key), _numbered(part)
        key, span = key * width + part, span * width
    which, found = _numbered(key)
    rows = np.zeros(found, np.int64)
    rows[which] = np.arange(count)
    return which, rows


def _numbered(values: Ints) -> tuple[Ints, int]:
    """The same as numbers from 0 on, and how many there are. By hashing: numpy's `unique` sorts."""
    encoded = pa.array(values).dictionary_encode()
    return np.asarray(encoded.indices).astype(np.int64), len(encoded.dictionary)


# -- texts -------------------------------------------------------------------------------------------------------------


def _digits(numbers: Ints) -> pa.Array[Any]:
    return pa.array(numbers).cast(pa.large_string()).cast(pa.large_binary())


def _empty(count: int) -> pa.Array[Any]:
    return pa.repeat(pa.scalar(b"", pa.large_binary()), count)


def _joined(parts: list[pa.Array[Any]], between: bytes) -> Any:
    texts: list[Any] = [*parts, pa.scalar(between, pa.large_binary())]
    return pc.binary_join_element_wise(*texts)
