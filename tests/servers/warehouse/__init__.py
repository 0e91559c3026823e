"""A stand-in for a Databricks SQL warehouse with Unity Catalog, written for these tests: `python -m warehouse FOLDER`.

The unmodified databricks-sql-connector talks to it. It speaks the connector's own Thrift service over HTTP, runs SQL on DuckDB, which
sqlglot translates for, and keeps volumes as folders. What it promises is what the tests rest on: COPY INTO never loads a file twice into
one table, a statement takes effect as a whole or not at all, tokens, permissions and limits of parameters are enforced. What it is not:
Photon, Delta's log, a cluster. Writers wait for each other, so conflicts between them come only when a test orders them.

    __main__    the process: where it listens
    front       HTTP: tokens, faults on demand, files of volumes, the orders of tests
    service     the Thrift service: sessions, operations, results
    engine      one statement: who may run it, what it does
    copying     COPY INTO, and its memory
    dialect     Databricks SQL as DuckDB's, its types, and errors the other way round
    volumes     PUT, GET, REMOVE, LIST, and paths in volumes
    rules       permissions that can be taken away, and the errors
"""
