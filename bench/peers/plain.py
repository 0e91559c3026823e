"""The plainest loop over the driver that lakeward reads with: `plain.py DATABASE FOLDER`. No state, no checks, no fsync."""

import sys
from pathlib import Path

import adbc_driver_manager
import adbc_driver_sqlite
import pyarrow as pa
import pyarrow.parquet as pq

database, folder = sys.argv[1], Path(sys.argv[2])
with (
    adbc_driver_sqlite.connect(database) as opened,
    adbc_driver_manager.AdbcConnection(opened) as connection,
    adbc_driver_manager.AdbcStatement(connection) as statement,
):
    statement.set_options(**{"adbc.sqlite.query.batch_rows": "65536"})
    statement.set_sql_query("SELECT * FROM sensor_readings ORDER BY reading_id")
    stream, _ = statement.execute_query()
    with pa.RecordBatchReader.from_stream(stream) as batches:
        for number, batch in enumerate(batches):
            with pq.ParquetWriter(folder / f"{number}.parquet", batch.schema) as writer:
                writer.write_batch(batch)
