"""The whole table by one COPY through DuckDB's SQLite extension: `duckdb_copy.py DATABASE FOLDER`."""

import sys
from importlib.resources import files

import duckdb

database, folder = sys.argv[1:3]
extension = files("duckdb_extension_sqlite_scanner") / f"extensions/v{duckdb.__version__}/sqlite_scanner.duckdb_extension"
with duckdb.connect() as connection:
    connection.execute(f"LOAD '{extension}'")
    connection.execute(f"ATTACH '{database}' AS sensor (TYPE sqlite, READ_ONLY)")
    connection.execute(f"COPY (SELECT * FROM sensor.sensor_readings) TO '{folder}/all.parquet' (FORMAT parquet)")
