"""Rows per CPU second of gps_fuzz: 1M rows in batches of 65,536 from 10,000 devices that move, one fix a second each.

    python bench/gps_fuzz.py [metres per second, 10]

The faster they move, the fewer rows share a cell; at 200 m/s every row is in a cell of its own.
"""

import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa

from lakeward.secrets import Secret
from lakeward_plugins.transforms.gps_fuzz import GpsFuzz

ROWS, BATCH, DEVICES = 1_048_576, 65_536, 10_000
VARIANTS: list[dict[str, Any]] = [{}, {"mode": "planar_laplace", "epsilon": 0.04}, {"release": "offset"}, {"bucket_s": 3600.0}]


def readings(speed: float) -> pa.RecordBatch:
    """Devices all over the Earth, each on its own straight way."""
    random = np.random.default_rng(1)
    device, second = np.arange(ROWS) % DEVICES, np.arange(ROWS) // DEVICES
    heading, way = random.uniform(0, 2 * np.pi, DEVICES)[device], second * speed / 111_320
    lat = random.uniform(-60, 60, DEVICES)[device] + way * np.cos(heading)
    lon = random.uniform(-179, 179, DEVICES)[device] + way * np.sin(heading)
    names = pa.array([f"sensor-{number:05}" for number in range(DEVICES)]).take(pa.array(device))
    return pa.record_batch({"_row": np.arange(ROWS), "timestamp": 1.7e9 + second, "sensor_id": names, "latitude": lat, "longitude": lon})


def main() -> None:
    """Print the best of three for each variant."""
    rows = readings(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
    for options in VARIANTS:
        transform = GpsFuzz(key=Secret("0123456789abcdef" * 4, "bench"), **options)
        taken = []
        for _ in range(3):
            start = time.process_time()
            for begin in range(0, ROWS, BATCH):
                transform.apply(rows.slice(begin, BATCH))
            taken.append(time.process_time() - start)
        print(f"{ROWS / min(taken):12,.0f} rows per CPU second  {options or 'defaults'}")


if __name__ == "__main__":
    main()
