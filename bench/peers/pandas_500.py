"""500 rows at a time through pandas, one Parquet file each, as scripts on edge nodes often do: `pandas_500.py DATABASE FOLDER`."""

import sqlite3
import sys
from contextlib import closing

import pandas as pd

database, folder = sys.argv[1:3]
query = "SELECT * FROM sensor_readings WHERE reading_id > ? ORDER BY reading_id LIMIT 500"
last = 0
with closing(sqlite3.connect(database)) as connection:
    while len(rows := pd.read_sql_query(query, connection, params=(last,))):
        rows.to_parquet(f"{folder}/{last}.parquet")
        last = int(rows["reading_id"].iloc[-1])
