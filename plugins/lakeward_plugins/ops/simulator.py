"""The model behind `lakeward sensor run`: sensors that measure, move and sometimes fail.

Values wander around a level of their own and stay within the limits of `CHANNELS`; only a fault leads out of them. All
follows from the seed and the names of the sensors, never from the clock or from how the rows are cut into transactions.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import define, field, frozen

from lakeward_plugins.ops.sensor_tables import Row


@frozen
class Channel:
    """One measured quantity: its limits, the levels sensors settle at, the step from one reading to the next, how far faults go."""

    name: str
    limits: tuple[float, float]
    levels: tuple[float, float]
    step: float
    extremes: tuple[float, float]


CHANNELS = (
    Channel("temperature", (-20.0, 60.0), (12.0, 28.0), 0.05, (-55.0, 110.0)),  # degC
    Channel("humidity", (5.0, 95.0), (35.0, 65.0), 0.1, (0.0, 100.0)),  # %
    Channel("pressure", (950.0, 1050.0), (1003.0, 1023.0), 0.05, (860.0, 1100.0)),  # hPa
    Channel("vibration", (0.0, 10.0), (1.0, 4.0), 0.05, (0.0, 40.0)),  # mm/s2
    Channel("voltage", (20.0, 25.0), (22.0, 23.5), 0.02, (0.0, 36.0)),  # V
)
DIGITS = 2
PULL = 0.02  # back to the level at each reading, so that values wander but do not leave
LENGTHS = {"spike": 1, "missing": 2, "stuck": 8, "trend": 15, "drift": 30}
"""The kinds of faults, and how many readings each lasts."""
REACH = 1000.0  # m from its base: where a moving sensor turns back
WALKING = 1.4  # m/s
LONGEST_STRIDE = 50.0  # m from reading to reading, however seldom they are; more would not look like a walk
FIRMWARE = ("1.2.0", "1.3.1", "2.0.4")
MODELS = (("EnviroMax", "Lakeside Instruments"), ("TempPro 3000", "SensorTech Industries"), ("VibraSense X2", "EdgeWorks GmbH"))
CITIES = {
    "Amsterdam": (52.3676, 4.9041, "+01:00"), "Athens": (37.9838, 23.7275, "+02:00"), "Berlin": (52.52, 13.405, "+01:00"),
    "Delhi": (28.6139, 77.209, "+05:30"), "London": (51.5074, -0.1278, "+00:00"), "Madrid": (40.4168, -3.7038, "+01:00"),
    "New York": (40.7128, -74.006, "-05:00"), "Paris": (48.8566, 2.3522, "+01:00"), "Rome": (41.9028, 12.4964, "+01:00"),
    "San Francisco": (37.7749, -122.4194, "-08:00"), "Sao Paulo": (-23.5505, -46.6333, "-03:00"), "Sydney": (-33.8688, 151.2093, "+10:00"),
    "Tokyo": (35.6762, 139.6503, "+09:00"),
}  # fmt: skip
METERS_PER_DEGREE = 111_195.0  # of latitude, on a sphere of 6,371 km


# -- all sensors -------------------------------------------------------------------------------------------------------


class Fleet:
    """Sensors that are read in turn, with the wanted share of faulty readings over all of them."""

    def __init__(self, identities: Sequence[Identity], seed: int, kinds: Sequence[str], share: float, moves_every: float | None) -> None:
        """`moves_every` is the time from one reading of a moving sensor to its next, in seconds."""
        self._sensors = [Sensor(one, dice(seed, one.name), _track(one, seed, moves_every)) for one in identities]
        self._chance = dice(seed, "faults")
        self._kinds = list(kinds)
        self._weights = [1 / LENGTHS[kind] for kind in kinds]  # so that each kind has as many readings
        self._share = share
        length = len(kinds) / sum(self._weights) if kinds else 1.0
        self._begin = share / (share + length * (1 - share)) if share else 0.0
        self.read = 0
        self.anomalies: Counter[str] = Counter()

    def readings(self, count: int, stamp: Callable[[int], str]) -> Iterator[tuple[Path, Row]]:
        """The next readings, each with the database it belongs to."""
        for _ in range(count):
            sensor = self._sensors[self.read % len(self._sensors)]
            if self._begin and sensor.fault is None and self._chance.random() < self._begin * self._correction():
                sensor.fail(self._chance.choices(self._kinds, self._weights)[0])
            if sensor.fault:
                self.anomalies[sensor.fault.kind] += 1
            row = sensor.read(stamp(self.read))
            self.read += 1
            yield sensor.identity.database, row

    def _correction(self) -> float:
        """More faults when there were too few so far: long ones would make the share of a short run a lottery."""
        return 2.0 if self.anomalies.total() <= self._share * self.read else 0.5


def _track(identity: Identity, seed: int, moves_every: float | None) -> Track | None:
    if moves_every is None:
        return None
    return Track(identity, dice(seed, "track", identity.name), min(WALKING * moves_every, LONGEST_STRIDE))


def dice(*seeds: object) -> random.Random:
    """Random numbers that are the same for the same seeds, on every machine and Python."""
    return random.Random("/".join(map(str, seeds)))  # noqa: S311  # made-up readings, not keys


# -- one sensor --------------------------------------------------------------------------------------------------------


@define
class Sensor:
    """One sensor: gives its next reading whenever it is asked."""

    identity: Identity
    chance: random.Random
    track: Track | None
    """None for a sensor that stands still."""
    fault: Fault | None = None
    _levels: list[float] = field(init=False)
    _values: list[float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._levels = [self.chance.uniform(*channel.levels) for channel in CHANNELS]
        self._values = list(self._levels)

    def fail(self, kind: str) -> None:
        """A fault of this kind begins with the next reading."""
        first = self.chance.randrange(len(CHANNELS))
        channels = self.chance.sample(range(len(CHANNELS)), self.chance.randint(1, len(CHANNELS))) if kind == "missing" else [first]
        self.fault = Fault(kind, channels, self._values[first], _outside(CHANNELS[first], self.chance))

    def read(self, stamp: str) -> Row:
        """The next reading."""
        kind = self.fault.kind if self.fault else None
        if kind != "stuck":
            self._wander()
        values: list[float | None] = [round(value, DIGITS) for value in self._values]
        if self.fault:
            self._spoil(values, self.fault)
        one = self.identity
        latitude, longitude = self.track.next() if self.track else (one.latitude, one.longitude)
        status = 500 if kind == "missing" else 200
        return (
            stamp, one.name, *values, status, int(kind is not None), kind, one.firmware, one.model, one.manufacturer, one.location,
            latitude, longitude, one.timezone, 0,
        )  # fmt: skip

    def _wander(self) -> None:
        gauss = self.chance.gauss
        for index, channel in enumerate(CHANNELS):
            value = self._values[index]
            value += PULL * (self._levels[index] - value) + gauss(0.0, channel.step)
            low, high = channel.limits
            self._values[index] = min(max(value, low), high)

    def _spoil(self, values: list[float | None], fault: Fault) -> None:
        fault.done += 1
        share = fault.done / LENGTHS[fault.kind]
        first = fault.channels[0]
        if fault.kind == "missing":
            for index in fault.channels:
                values[index] = None
        elif fault.kind == "trend":  # what is measured goes in a straight line
            values[first] = round(fault.start + share * (fault.target - fault.start), DIGITS)
        elif fault.kind in ("spike", "drift"):  # a calibration that creeps away, ever faster; a spike is there at once
            natural = self._values[first]
            values[first] = round(natural + share**2 * (fault.target - natural), DIGITS)
        if fault.done >= LENGTHS[fault.kind]:
            self.fault = None


@define
class Fault:
    """Something that goes wrong with one sensor for a few readings, in one channel or in some (`missing`) or all (`stuck`)."""

    kind: str
    channels: list[int]
    start: float
    target: float
    """Outside the limits; where a spike jumps to, and where trend and drift arrive at their last reading."""
    done: int = 0


def _outside(channel: Channel, chance: random.Random) -> float:
    """A value beyond one of the limits, where there is room beyond it."""
    sides = [(limit, extreme) for limit, extreme in zip(channel.limits, channel.extremes, strict=True) if limit != extreme]
    limit, extreme = chance.choice(sides)
    return limit + chance.uniform(0.2, 1.0) * (extreme - limit)


@define
class Track:
    """A smooth walk that stays within about `REACH` of its base."""

    base: Identity
    chance: random.Random
    stride: float
    _east: float = 0.0
    _north: float = 0.0
    _heading: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._heading = self.chance.uniform(-math.pi, math.pi)

    def next(self) -> tuple[float, float]:
        """Latitude and longitude one stride on."""
        self._heading += self.chance.gauss(0.0, 0.1)
        if math.hypot(self._east, self._north) > REACH:
            home = math.atan2(-self._east, -self._north)
            self._heading += 0.2 * math.remainder(home - self._heading, math.tau)
        self._east += self.stride * math.sin(self._heading)
        self._north += self.stride * math.cos(self._heading)
        return _moved(self.base.latitude, self.base.longitude, self._east, self._north)


# -- who a sensor is ---------------------------------------------------------------------------------------------------


@frozen
class Identity:
    """What does not change while a sensor lives; it follows from its name, so that a file can be continued later."""

    name: str
    database: Path
    firmware: str
    model: str
    manufacturer: str
    location: str
    latitude: float
    longitude: float
    timezone: str


def sensor_in_plant(number: int, database: Path) -> Identity:
    """The sensor with this number, all in one table."""
    return _identity(f"SENSOR_{number:05d}", database, "London", f"Plant {number % 9 + 1}, Hall {'ABCDEF'[number % 6]}")


def sensor_in_city(city: str, number: int, root: Path) -> Identity:
    """A sensor with a code of its own and a file of its own: ROOT/CITY/CODE/sensor_data.db."""
    code = hashlib.sha256(f"{city}/{number}".encode()).hexdigest()[:3] + f"{number:03d}"
    return _identity(f"{city}_{code}", root / city / code / "sensor_data.db", city, city)


def _identity(name: str, database: Path, city: str, location: str) -> Identity:
    chance = dice("identity", name)
    somewhere = dice("city", city)
    latitude, longitude, timezone = CITIES.get(city) or (somewhere.uniform(-55, 60), somewhere.uniform(-180, 180), "+00:00")
    model, manufacturer = chance.choice(MODELS)
    east, north = chance.uniform(-4000, 4000), chance.uniform(-4000, 4000)
    latitude, longitude = _moved(latitude, longitude, east, north)
    return Identity(name, database, chance.choice(FIRMWARE), model, manufacturer, location, latitude, longitude, timezone)


def _moved(latitude: float, longitude: float, east: float, north: float) -> tuple[float, float]:
    """A position so many meters away."""
    turned = longitude + east / (METERS_PER_DEGREE * math.cos(math.radians(latitude)))
    return round(latitude + north / METERS_PER_DEGREE, 6), round((turned + 180) % 360 - 180, 6)
