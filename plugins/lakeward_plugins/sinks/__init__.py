"""The sinks."""

from lakeward import Component, hookimpl

LAKEWARD_API = (1, 0)


@hookimpl
def lakeward_components() -> list[Component]:
    """Announce the sinks."""
    at = "lakeward_plugins.sinks"
    return [
        Component("sink", "parquet", f"{at}.parquet:ParquetSink", "Parquet files in a local folder."),
        Component("sink", "delta", f"{at}.delta:DeltaSink", "A Delta Lake table in a local folder or in S3.", extra="lakeward[delta]"),
        Component("sink", "s3", f"{at}.s3:S3Sink", "Parquet files in an S3 bucket, or in any store with its API.", extra="lakeward[s3]"),
        Component("sink", "duckdb", f"{at}.duckdb:DuckDBSink", "A table in a DuckDB file.", extra="lakeward[duckdb]"),
        Component("sink", "sqlite", f"{at}.sqlite:SqliteSink", "A table in a SQLite file."),
        Component(
            "sink", "databricks", f"{at}.databricks:DatabricksSink", "A table of a Databricks SQL warehouse.", extra="lakeward[databricks]"
        ),
        Component("sink", "cosmos", f"{at}.cosmos:CosmosSink", "Items in a container of Azure Cosmos DB.", extra="lakeward[cosmos]"),
        Component("sink", "archive", f"{at}.archive:ArchiveSink", "Parquet files in a local folder, one for each sensor, that grow."),
        Component("sink", "console", f"{at}.console:ConsoleSink", "Rows on standard output, as a table or as JSON lines."),
    ]
