"""dlt from SQLite to Parquet files in a folder: `dlt_load.py DATABASE FOLDER BACKEND`, a backend of its `sql_table`."""

import os
import sys

database, folder, backend = sys.argv[1:4]
os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}

import dlt  # noqa: E402  # it reads the environment when it is imported
from dlt.sources.sql_database import sql_table  # noqa: E402

pipeline = dlt.pipeline(
    "bench", pipelines_dir=f"{folder}/state", dataset_name="out", destination=dlt.destinations.filesystem(f"file://{folder}")
)
table = sql_table(f"sqlite:///{database}", table="sensor_readings", backend=backend)
pipeline.run(table, loader_file_format="parquet").raise_on_failed_jobs()
