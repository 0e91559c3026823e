"""What delivery costs: a table after thousands of commits, a bucket beside the bare library, four sinks beside one.

    python bench/lake.py [commits]     # wants lakeward[delta,s3] and moto[server]; PYTHONPATH=tests/servers

Figures are of CPU, or ratios of times of two things that take turns, so that other work on the machine matters little.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from attrs import evolve
from cost import cost
from database import make
from s3_server import ALONE, S3Server, s3_server

from lakeward.secrets import Secret
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.delta import DeltaSink
from lakeward_plugins.sinks.s3 import S3Sink

ROWS = 100_000
FOUR = """
name: four
source: {use: sqlite, path: sensor.db, table: sensor_readings}
sinks:
"""
SINKS = {
    "files": "{use: parquet, path: lake/files}",
    "bucket": "{use: s3, bucket: '${BUCKET}', prefix: raw, endpoint_url: '${STORE}'}",
    "table": "{use: delta, path: lake/table}",
    "far_table": "{use: delta, path: 's3://${BUCKET}/table', endpoint_url: '${STORE}'}",
}


def commits(folder: Path, count: int) -> None:
    """CPU of each commit of 500 rows to a local table: the first, the last, and how much memory it takes by then."""
    rows = pa.record_batch({"id": range(500), "sensor": ["a"] * 500, "value": [0.5] * 500})
    sink, spooled = DeltaSink(folder / "table"), make_parcel(folder / "spool", rows)
    spent = []
    for number in range(count):
        parcel = evolve(spooled, token=evolve(spooled.token, sequence=number), path=folder / "spool" / f"{number}.parquet")
        if parcel.path != spooled.path:
            os.link(spooled.path, parcel.path)
        began = time.process_time()
        sink.deliver(parcel)
        spent.append(1000 * (time.process_time() - began))
        parcel.path.unlink()
    first, last = spent[10:110], spent[-100:]  # each with a compaction in it
    for name, part in (("commits 10 to 110", first), (f"the last 100 of {count:,}", last)):
        print(f"{name}: median {statistics.median(part):.2f} ms, mean {statistics.mean(part):.2f} ms of CPU")
    print(f"late beside early: {statistics.median(last) / statistics.median(first):.2f} by median, {sum(last) / sum(first):.2f} by mean")


def throughput(s3: S3Server, folder: Path) -> None:
    """The time that the sink and the bare library take for the same bytes, in turns."""
    noise = pa.record_batch({"noise": [os.urandom(1 << 20) for _ in range(32)]})
    parcel, bucket, client = make_parcel(folder / "spool", noise), s3.bucket(), s3.client()
    keys = {"access_key_id": Secret(s3.access_key_id, "a"), "secret_access_key": Secret(s3.secret_access_key, "b")}
    sink, ratios = S3Sink(bucket, "sink", endpoint_url=s3.url, **keys), []  # type: ignore[arg-type]
    for number in range(8):
        each = evolve(parcel, token=evolve(parcel.token, sequence=number))
        began = time.perf_counter()
        with each.path.open("rb") as body:
            client.put_object(Bucket=bucket, Key=f"plain/{number}", Body=body)
        plain = time.perf_counter() - began
        sink.deliver(each)
        ratios.append(plain / (time.perf_counter() - began - plain))
    sink.close()
    print(f"s3, {parcel.path.stat().st_size / 1e6:.0f} MB an object: {statistics.median(ratios):.2f} of the bare library's throughput")


def four(s3: S3Server, folder: Path) -> None:
    """CPU of a whole `lakeward run --once` over 100,000 rows, to each sink alone and to all."""
    make(folder / "sensor.db", ROWS)
    known = ALONE | {"STORE": s3.url, "AWS_ACCESS_KEY_ID": s3.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.secret_access_key}
    known |= {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
    spent: dict[str, list[float]] = {}
    for _ in range(3):
        for names in (*([name] for name in SINKS), list(SINKS)):
            sinks = "".join(f"  {name}: {SINKS[name]}\n" for name in names)
            (folder / "p.yaml").write_text(FOUR + sinks)
            command = [sys.executable, "-m", "lakeward", "run", "p.yaml", "--once", "--state-dir", tempfile.mkdtemp(dir=folder)]
            shutil.rmtree(folder / "lake", ignore_errors=True)
            spent.setdefault(" + ".join(names), []).append(cost(command, folder, known | {"BUCKET": s3.bucket()}).cpu)
    medians = {label: statistics.median(each) for label, each in spent.items()}
    for label, each in medians.items():
        print(f"{label}: {each:.2f} s of CPU for {ROWS:,} rows")
    *alone, together = medians.values()
    print(f"all four: {together / max(alone):.2f} times the dearest alone, {together / sum(alone):.2f} of the sum")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    with tempfile.TemporaryDirectory() as name, s3_server() as s3:
        folder = Path(name)
        commits(folder / "commits", count)
        throughput(s3, folder / "throughput")
        four(s3, folder)


if __name__ == "__main__":
    main()
