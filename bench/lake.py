"""What delivery costs: a table after thousands of commits, a bucket beside the bare library, four sinks beside one.

    python bench/lake.py [commits]     # wants lakeward[delta,s3,databricks] and what their servers need; PYTHONPATH=tests/servers

Figures are of CPU, or ratios of times of two things that take turns, so that other work on the machine matters little.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from attrs import evolve
from cost import cost
from database import make
from databricks_server import DatabricksServer, databricks_server
from report import heading, replace, spread
from s3_server import ALONE, S3Server, s3_server

from lakeward.secrets import Secret
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.delta import DeltaSink
from lakeward_plugins.sinks.s3 import S3Sink

MARK = "<!-- written by make bench-lake -->\n"
ROWS, ROUNDS, ALL = 100_000, 5, "all four"
FOUR = """
name: four
source: {use: sqlite, path: DATABASE, table: sensor_readings}
sinks:
"""
SINKS = {
    "Parquet files": "{use: parquet, path: lake/files}",
    "S3": "{use: s3, bucket: '${BUCKET}', prefix: raw, endpoint_url: '${STORE}'}",
    "Delta in S3": "{use: delta, path: 's3://${BUCKET}/table', endpoint_url: '${STORE}'}",
    "Databricks, COPY": "{use: databricks, host: '${HOST}', http_path: '${HTTP_PATH}', create: true, table: '${SCHEMA}.t', VOLUME}".replace(
        "VOLUME", "volume: '${SCHEMA}.staged'"
    ),
}


def commits(folder: Path, count: int) -> list[str]:
    """CPU of each commit of 500 rows to a local table, early and late."""
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
    sink.close()
    early, late = spent[10:110], spent[-100:]
    lines = ["| commits of 500 rows to a local Delta table, compacted every hundred | median CPU | mean CPU |", "| --- | --- | --- |"]
    for name, part in (("10 to 110", early), (f"the last 100 of {count:,}", late)):
        lines.append(f"| {name} | {statistics.median(part):.2f} ms | {statistics.mean(part):.2f} ms |")
    ratios = (statistics.median(late) / statistics.median(early), statistics.mean(late) / statistics.mean(early))
    return [*lines, f"| late to early | {ratios[0]:.2f} x | {ratios[1]:.2f} x |", ""]


def throughput(s3: S3Server, folder: Path) -> list[str]:
    """The time that the sink and the bare library take for the same bytes, in turns."""
    noise = pa.record_batch({"noise": [os.urandom(1 << 20) for _ in range(32)]})
    parcel, bucket, client = make_parcel(folder / "spool", noise), s3.bucket(), s3.client()
    keys = {"access_key_id": Secret(s3.access_key_id, "a"), "secret_access_key": Secret(s3.secret_access_key, "b")}
    sink, ratios, plain = S3Sink(bucket, "sink", endpoint_url=s3.url, **keys), list[float](), list[float]()  # type: ignore[arg-type]

    def bare(number: int) -> float:
        began = time.perf_counter()
        with parcel.path.open("rb") as body:
            client.put_object(Bucket=bucket, Key=f"plain/{number}", Body=body)
        return time.perf_counter() - began

    def ours(number: int) -> float:
        began = time.perf_counter()
        sink.deliver(evolve(parcel, token=evolve(parcel.token, sequence=number)))
        return time.perf_counter() - began

    for number in range(13):
        took = {function: function(number) for function in ((bare, ours) if number % 2 else (ours, bare))}
        if number:  # the first one makes connections
            plain.append(took[bare])
            ratios.append(took[bare] / took[ours])
    sink.close()
    size = parcel.path.stat().st_size / 1e6
    return [
        f"S3, {size:.0f} MB an object, {len(ratios)} turns: throughput {spread(ratios, ' x')} that of `put_object` of boto3, "
        f"which made {size / statistics.median(plain):.0f} MB/s with this server.\n"
    ]


def four(s3: S3Server, databricks: DatabricksServer, folder: Path) -> list[str]:
    """CPU of a whole `lakeward run --once`, to each sink alone and to all, in turns; then the same with one row, which is its start."""
    make(folder / "sensor.db", ROWS)
    make(folder / "one.db", 1)
    known = ALONE | {"STORE": s3.url, "AWS_ACCESS_KEY_ID": s3.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.secret_access_key}
    known |= {"HOST": databricks.url, "HTTP_PATH": databricks.http_path, "DATABRICKS_TOKEN": databricks.token}
    known |= {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}

    def run(label: str, database: str) -> float:
        names = [label] if label in SINKS else list(SINKS)
        sinks = "".join(f"  sink{number}: {SINKS[name]}\n" for number, name in enumerate(names))
        (folder / "p.yaml").write_text(FOUR.replace("DATABASE", database) + sinks)
        command = [sys.executable, "-m", "lakeward", "run", "p.yaml", "--once", "--state-dir", tempfile.mkdtemp(dir=folder)]
        shutil.rmtree(folder / "lake", ignore_errors=True)
        return cost(command, folder, known | {"BUCKET": s3.bucket(), "SCHEMA": databricks.schema()}).cpu

    spent: dict[str, list[float]] = {name: [] for name in (*SINKS, ALL)}
    starts: dict[str, list[float]] = {name: [] for name in spent}
    for turn in range(ROUNDS):
        for label in spent:
            spent[label].append(run(label, "sensor.db"))
            starts[label].append(run(label, "one.db"))
            print(f"turn {turn + 1}: {label}: {spent[label][-1]:.2f} s, {starts[label][-1]:.2f} s with one row", flush=True)
    return table_of_four(spent, starts)


def table_of_four(spent: Mapping[str, Sequence[float]], starts: Mapping[str, Sequence[float]]) -> list[str]:
    """Each beside all four, in the same turn."""

    def beside(others: Iterable[float]) -> str:
        return spread([both / one for both, one in zip(spent[ALL], others, strict=True)], " x")

    lines = [
        f"| `run --once`, {ROWS:,} rows of 19 columns | CPU | of which start, as with one row | all four to it | runs |",
        "| --- | --- | --- | --- | --- |",
    ]
    for label, used in spent.items():
        lines.append(f"| {label} | {spread(used, ' s')} | {spread(starts[label], ' s')} | {beside(used)} | {len(used)} |")
    alone = list(zip(*(spent[name] for name in SINKS), strict=True))
    ratios = f"to the dearest one: {beside(map(max, alone))}; to the mean of one: {beside(map(statistics.mean, alone))}"
    return [*lines, "", f"All four {ratios}. The rows are encoded and hashed once; what differs is what is imported.", ""]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, s3_server() as s3, databricks_server() as databricks:
        folder = Path(name)
        lines = [*four(s3, databricks, folder), *throughput(s3, folder / "throughput"), *commits(folder / "commits", count)]
    print(f"{time.perf_counter() - began:.0f} s")
    replace(Path(__file__).parent / "RESULTS.md", MARK, "\n".join([heading().replace("## ", "## Delivery, ", 1), *lines]))


if __name__ == "__main__":
    main()
